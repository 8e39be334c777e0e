"""The console script: `ftjax COMMAND ...` is `python -m experiments.COMMAND ...`."""

import sys
from collections.abc import Sequence
from importlib import import_module

import ftjax
from ftjax.cli.console import guard

COMMANDS = {
    "sweep": "how many top layers to unfreeze: train at many depths",
    "advise": "head alone, some layers, all or from scratch: by number of images",
    "status": "how far a run is: done, running, failed, left",
    "gradcam": "what the stages of a trained network look at",
    "fit": "what a table of depths and accuracies says; the paper's audit",
    "compare": "what several runs say together: networks, data, one rule for all",
    "cuts": "where a network can be cut, and what a depth unfreezes",
    "predict": "classify image files with a trained depth",
    "export": "take a trained depth to Keras, ONNX, PyTorch or safetensors",
    "simulate": "what the search over depths is worth, on planted curves",
    "pretrain": "train a network from random weights",
    "alexnet-study": "small sets of images: the second paper's figures and claims",
    "weights": "fetch and list official pretrained weights",
}


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = words[0] if words else "--help"
    if name in ("--help", "-h"):
        print(usage())
        return 0 if words else 2
    if name == "--version":
        print(f"ftjax {ftjax.__version__}")
        return 0
    if name not in COMMANDS:
        print(
            f"error: unknown command {name!r}; ftjax takes {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    prepare_memory()
    run = import_module(f"ftjax.cli.{name.replace('-', '_')}").main
    if arguments is not None:
        return run(words[1:])
    # The command reads the command line itself: it then owns the process.
    sys.argv = [f"ftjax {name}", *words[1:]]
    return run()


def prepare_memory() -> None:
    """One arena for all threads; before the import of packages that start some."""
    from ftjax.machine.heap import use_one_arena

    use_one_arena()


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:13} {words}" for name, words in COMMANDS.items()]
    return "\n".join(
        ["usage: ftjax COMMAND ...", "", *lines, "", "ftjax COMMAND --help says more."]
    )
