"""The three tasks of the benchmark: peers take turns, in processes of their own."""

import multiprocessing
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.benchmark.options import GROWTH, Options
from experiments.benchmark.peers import Work, serve
from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.data import load
from ftjax.defaults import PAPER_EPOCHS
from ftjax.depth import PAPER_DEPTHS, make_cut
from ftjax.machine.capability import device_type
from ftjax.sweep.cost import measure_cost, trial_flops

PATIENCE = 3600  # seconds that one turn may take


class Player:
    """One peer's process; `turn` lets it do the next piece of work."""

    def __init__(self, peer: str, task: str, work: Work):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=serve, args=(peer, task, work, other), name=peer, daemon=True
        )
        self.process.start()
        other.close()

    def ready(self, patience: float = PATIENCE) -> None:
        """Waits until the framework is imported, which would slow another's turn.

        Raises:
            RuntimeError: it is not installed, or failed.
        """
        self.answer(patience)

    def turn(self, patience: float = PATIENCE) -> float | None:
        """Seconds of the next piece of work, None after the last.

        Raises:
            RuntimeError: the framework failed.
        """
        with suppress(BrokenPipeError):  # then the answer is that it died
            self.pipe.send(True)
        return self.answer(patience)

    def answer(self, patience: float) -> float | None:
        """What the process sends next; an error that it sends is raised."""
        try:
            if not self.pipe.poll(patience):
                raise RuntimeError(f"no answer in {patience:.0f} s")
            answer = self.pipe.recv()
        except (EOFError, BrokenPipeError):
            raise RuntimeError("its process died; out of memory?") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()


def take_turns(
    peers: Iterable[str], task: str, work: Work, turns: int | None, console: Console
) -> dict[str, list[float]]:
    """Measurements of each peer; one that fails is reported and left out."""
    measured: dict[str, list[float]] = {peer: [] for peer in peers}
    players = {peer: Player(peer, task, work) for peer in measured}

    def leave_out(peer: str, error: Exception) -> None:
        console.print(f"{peer} left out: {error}", markup=False)
        measured.pop(peer)
        players.pop(peer).close()

    try:
        for peer, player in list(players.items()):
            try:
                player.ready()
            except RuntimeError as error:
                leave_out(peer, error)
        while players and turns != 0:
            for peer, player in list(players.items()):
                try:
                    seconds = player.turn()
                except RuntimeError as error:
                    leave_out(peer, error)
                    continue
                if seconds is None:
                    players.pop(peer).close()
                else:
                    measured[peer].append(seconds)
            turns = None if turns is None else turns - 1
    finally:
        for player in players.values():
            player.close()
    return measured


def measure_steps(options: Options, console: Console) -> Iterator[dict]:
    """Training steps, by default of the whole network and of its top quarter."""
    for model in options.model:
        total = len(make_backbone(model).layers)
        for depth in options.depths or (total, total // 4):
            work = make_work(options, model, (depth,))
            measured = take_turns(
                options.peers, "steps", work, options.rounds + 2, console
            )
            flops = step_flops(work)
            # PyTorch's second turn took up to twice as long as the later ones.
            for peer, (first, _, *others) in measured.items():
                seconds = statistics.median(others)
                yield {
                    "task": "step",
                    **describe(work),
                    "peer": peer,
                    "seconds": seconds,
                    "first": first,
                    "gflops": flops / seconds / 1e9,
                }


def measure_grids(options: Options, console: Console) -> Iterator[dict]:
    """A whole sweep of every peer; all but ftjax take turns trial by trial."""
    for model in options.model:
        depths = tuple(options.depths or PAPER_DEPTHS.get(model, (0, 10, 20, 50)))
        epochs = options.epochs or PAPER_EPOCHS.get(model, 5)
        work = make_work(options, model, depths, epochs=epochs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npz"
            store_images(work, path)
            work = replace(work, images=str(path))
            measured = take_turns(options.peers, "grid", work, None, console)
        for peer, seconds in measured.items():
            whole, compiled = sum(seconds), float("nan")
            if peer == "ftjax":
                whole, compiled, *seconds = seconds
            yield {
                "task": "grid",
                **describe(work),
                "peer": peer,
                "seconds": whole,
                "compilation": compiled,
                "trainings": " ".join(f"{each:.3g}" for each in seconds),
            }


def measure_growth(options: Options, console: Console) -> Iterator[dict]:
    """Sweeps of ftjax with more depths, seeds or images; all else constant."""
    for model in options.model:
        total = len(make_backbone(model).layers)
        for axis in options.axes:
            for size in options.sizes or GROWTH[axis]:
                count = size if axis == "depths" else 2
                depths = np.linspace(0, total // 2, count).round().astype(int)
                work = make_work(
                    options,
                    model,
                    tuple(depths.tolist()),
                    epochs=options.epochs or 1,
                    seeds=size if axis == "seeds" else 1,
                )
                if axis == "images":
                    work = replace(work, train_size=size)
                measured = take_turns(("ftjax",), "grid", work, None, console)
                if "ftjax" not in measured:  # and said why
                    continue
                seconds, compiled, *_ = measured["ftjax"]
                yield {
                    "task": f"growth by {axis}",
                    **describe(work),
                    "size": size,
                    "peer": "ftjax",
                    "seconds": seconds,
                    "compilation": compiled,
                }


TASKS = {"step": measure_steps, "grid": measure_grids, "growth": measure_growth}


def make_work(
    options: Options,
    model: str,
    depths: tuple[int, ...],
    *,
    epochs: int = 1,
    seeds: int = 1,
) -> Work:
    """The options as the peers take them."""
    return Work(
        model=model,
        image_size=options.image_size,
        batch_size=options.batch_size,
        depths=depths,
        seeds=seeds,
        epochs=epochs,
        data=options.data,
        data_dir=str(options.data_dir) if options.data_dir else None,
        train_size=options.train_size,
        val_size=options.val_size,
        device=jax.default_backend(),
        dtype=options.dtype or default_dtype(),
    )


def store_images(work: Work, path: Path) -> None:
    """Writes the decoded images for the peers that do not read ftjax' data sets."""
    data = load(
        work.data,
        data_dir=Path(work.data_dir) if work.data_dir else None,
        image_size=work.image_size,
        train_size=work.train_size,
        val_size=work.val_size,
    )
    arrays = {}
    for name, split in (("train", data.train), ("val", data.val)):
        arrays[f"{name}_images"] = np.asarray(split.images)
        arrays[f"{name}_labels"] = np.asarray(split.labels)
    np.savez(path, **arrays)


def step_flops(work: Work) -> float:
    """FLOPs of a training step from the cut on; the frozen part is not counted."""
    network = with_head(make_backbone(work.model), 10)
    (depth,) = work.depths
    cut = make_cut(network, depth)
    return trial_flops(
        cut,
        measure_cost(network, work.image_size),
        boundary=cut.unit,
        steps=1,
        batch_size=work.batch_size,
        evaluated=0,
    ).train


def describe(work: Work) -> dict[str, Any]:
    """What a row of the table was measured on."""
    return {
        "model": work.model,
        "pixels": work.image_size,
        "batch": work.batch_size,
        "dtype": work.dtype,
        "depths": " ".join(map(str, work.depths)),
        "seeds": work.seeds,
        "epochs": work.epochs,
    }


def default_dtype() -> str:
    """What the networks compute in: bfloat16 where there is an accelerator with it."""
    return device_type(jax.local_devices()[0])
