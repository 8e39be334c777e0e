"""The Python API: `sweep` trains and answers, `open` reads a run again."""

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftjax import session
from ftjax.analysis.recommend import recommend
from ftjax.analysis.results_file import own_columns, read_results
from ftjax.backbones import add_backbone
from ftjax.backbones.backbone import Backbone
from ftjax.data.arrays import NAME, open_arrays
from ftjax.exports import export_network
from ftjax.keywords import in_python, make_config, signature_of
from ftjax.machine.console import make_console
from ftjax.machine.files import read_json
from ftjax.machine.paths import expand_user
from ftjax.predictor import Predictor, load
from ftjax.report import depth_plot
from ftjax.report.answer import recommend_run, write_files
from ftjax.report.progress import Display, print_plan
from ftjax.sweep.events import Listener
from ftjax.sweep.run import run as run_sweep
from ftjax.weights import own_names
from ftjax.weights.export import export_safetensors
from ftjax.weights.pretrained import convert_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = "depth_layers depth_units bn seed lr epochs val_accuracy status".split()


@dataclass(frozen=True)
class Answer:
    """What a sweep says.

    Attributes:
        sentence: the whole answer in plain words.
        depth: how many layers to unfreeze, counted from the output.
        bn: BatchNorm policy.
        set: the depths that are not shown to be worse than the best.
        smallest: of these.
        accuracy: expected on new images, 0..1 (or of the metric that was asked for):
            corrected for having chosen the best where that can be done, else as
            measured.
        conditions: that the answer holds under, by name.
        warnings: sentences.
        explanation: sentences about causes.
        chance: whether no depth is better than guessing; then `depth` is no advice.
        details: all that was found, as recommendation.json has it.
    """

    sentence: str
    depth: int
    bn: str
    set: tuple[int, ...]
    smallest: int
    accuracy: float
    conditions: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()
    chance: bool = False
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.sentence

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Answer":
        """From the plain values of a recommendation (`Recommendation.to_json`)."""
        expected = found["expected"]
        return cls(
            sentence=found["sentence"],
            depth=found["depth_layers"],
            bn=found["bn"],
            set=tuple(found["not_worse"]),
            smallest=found["smallest"],
            accuracy=found["val_accuracy"] if expected is None else expected,
            conditions=found["conditions"],
            warnings=tuple(found["warnings"]),
            explanation=tuple(found["explanation"]),
            chance=found["shape"] == "chance",
            details=found,
        )


@dataclass(frozen=True)
class Run:
    """A run's folder: its tables, its answer, its trained networks.

    Everything is read from the folder when it is asked for.

    Attributes:
        folder: that `out` named.
    """

    folder: Path

    @property
    def results(self) -> pd.DataFrame:
        """One row per depth, policy, setting and seed: results.csv."""
        return pd.read_csv(self.folder / "results.csv", dtype={"trial": str})

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per row of `results` and epoch: epochs.csv."""
        return pd.read_csv(self.folder / "epochs.csv", dtype={"trial": str})

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration, as plain values."""
        return read_json(self.folder / "config.json")["config"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(read_json(self.folder / "config.json")["class_names"])

    @property
    def answer(self) -> Answer | None:
        """The depth to use; None as long as no trial is done."""
        found = read_json(self.folder / "recommendation.json")
        return None if found is None else Answer.of(found)

    @property
    def report(self) -> Path:
        """The page with the answer, the figures and how they were made."""
        return self.folder / "report.html"

    def plot(self) -> "Figure":
        """Validation accuracy over depth, with what is as good as the best."""
        results = self.results
        best = None if self.answer is None else recommend_run(self.folder, results)
        return depth_plot.depth_curve(results, best.named if best else None)

    def load(
        self,
        depth: int | None = None,
        *,
        bn: str | None = None,
        seed: int | None = None,
        where: Sequence[str] = (),
        offline: bool = False,
    ) -> Predictor:
        """A trained network, ready for images; arguments as of `ftjax.load`."""
        return load(self.folder, depth, bn=bn, seed=seed, where=where, offline=offline)

    def predict(
        self, images: str | Path | Iterable[str | Path], **which: Any
    ) -> pd.DataFrame:
        """Classes of image files, and of all images in folders.

        Args:
            images: a file or a folder, or several.
            **which: the arguments of `load`: depth, bn, seed, where, offline.

        Returns:
            A row per file: `file`, `class`, `probability`, and `p_<class>` for every
            class, calibrated on the validation images.

        Raises:
            ValueError: no such trial, or a file is missing or is no image.
        """
        one = isinstance(images, str | Path)
        return self.load(**which).predict_table([images] if one else images)

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: str = "safetensors",
        **which: Any,
    ) -> Path:
        """Writes a trained network as a file.

        Args:
            path: of the file; None: in the run's folder.
            format: `keras`, `onnx`, `torch` (names of timm or torchvision), or
                `safetensors` (our own names, which `weights=` reads).
            **which: the arguments of `load`: depth, bn, seed, where, offline.

        Returns:
            The path. `ftjax export` prints the code that loads the file as well.

        Raises:
            ValueError: no such trial, or the format does not take the network.
        """
        path = None if path is None else expand_user(path)
        predictor = self.load(**which)
        return export_network(predictor, self.folder, format=format, path=path).path

    def _repr_html_(self) -> str:
        answer = self.answer
        sentence = "No trial is done." if answer is None else answer.sentence
        results = self.results
        known = [name for name in SHOWN if name in results]
        figure = self.folder / "depth_curve.svg"
        return "\n".join(
            [
                f"<p><b>{html.escape(sentence)}</b></p>",
                inline_svg(figure.read_text("utf-8")) if figure.is_file() else "",
                results[known].to_html(index=False, border=0),
                f"<p>{html.escape(str(self.report))}</p>",
            ]
        )


def sweep(
    data: Any = None,
    *,
    val: Any = None,
    model: str | Backbone = "effnetlite0",
    progress: bool = True,
    on_event: Listener = lambda event: None,
    **settings: Any,
) -> Run:
    """Trains a pretrained network at many depths, and says how many to unfreeze.

    The same call goes on where it was stopped; finished trials are kept, also those of
    the command `ftjax sweep`, which has the same settings and gives the same ids.

    Args:
        data: `digits`, `cifar10`, `food101`, `stanford_dogs`; the path of a folder of
            images; a tuple `(images, labels)`; or an iterable of `(image, label)`.
            An image is (h, w, 3) RGB or (h, w) grey, 0..255.
        val: images to validate on, where `data` is arrays; None: some of `data`.
        model: name of a network, or a `Backbone` of your own.
        progress: print the plan, a live line, and a line for every trial.
        on_event: called after every event of a trial (`ftjax.Event`).
        **settings: the options of `ftjax sweep` with underscores, one value or several:
            `depths=[0, 32]`, `lr="auto"`, `bn="frozen"`, `out="runs/mine"`; `ftjax
            sweep --help` explains them.

    Raises:
        TypeError: an argument is unknown (the nearest is named) or of another type.
        ValueError: a value, the data or the weights cannot be used.
    """
    if isinstance(model, Backbone):
        add_backbone(model)
        model = model.name
    given = {"model": model, **settings}
    source = None
    if data is None or isinstance(data, str | Path):
        if val is not None:
            raise ValueError("val goes with arrays; a folder has its own val/")
        given |= {} if data is None else {"data": str(data)}
    else:
        source = open_arrays(data, val)
        given["data"] = NAME
    config = make_config(given)
    console = make_console(quiet=not progress)
    began = time.perf_counter()
    try:
        session.start_jax(config)
        loaded, out = session.load(config, source)
    except ValueError as error:
        raise ValueError(in_python(str(error))) from error
    print_plan(loaded, console)
    words = ", ".join(f"{name}={value!r}" for name, value in given.items())
    session.record(loaded, out, f"ftjax.sweep({words})")
    with Display(console, began=began) as display:
        listen = session.make_listener(loaded, out, display.show, on_event)
        allowance = session.make_allowance(loaded, out, began)
        outcome = run_sweep(loaded, out, listen, display.begin_round, allowance)
    took = time.perf_counter() - began
    session.record_time(out, seconds=took, forecast=display.forecast)
    if left_out := session.report_allowance(allowance, outcome, out):
        console.print(left_out)
    for event in outcome.failed.values():
        console.print(f"{event.status}: {event.trial.describe()}: {event.message}")
    score = session.make_scorer(loaded, outcome, out)
    write_files(out, outcome.results, outcome.epochs, score)
    return Run(out)


def open(folder: str | Path, *, model: Backbone | None = None) -> Run:
    """A run that was made before, also by the command.

    Args:
        folder: that `out` named.
        model: the `Backbone`, where it was one of your own.

    Raises:
        ValueError: the folder holds no run.
    """
    if model is not None:
        add_backbone(model)
    folder = expand_user(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no run: config.json is missing; give the folder that out "
            "of the sweep named"
        )
    return Run(folder)


def fit(
    results: pd.DataFrame | str | Path,
    *,
    total_layers: int | None = None,
    epsilon: float | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Answer:
    """What anybody's table of depths and accuracies says.

    Args:
        results: a table, or the path of a CSV file: columns `depth` (or
            `depth_layers`), `accuracy` on validation data (or `val_accuracy`), optional
            `seed`, `bn`, `total_layers`, `seconds`, `flops`. Fractions or percent.
        total_layers: layers of the whole network, for tables that do not say.
        epsilon: accuracy (0..1) that does not matter: a depth leaves the set only if it
            is worse by more.
        bootstrap: number of draws.
        seed: of the draws.

    Raises:
        ValueError: a column is missing or not numeric, or nothing can be compared.
    """
    if isinstance(results, pd.DataFrame):
        table, notes = own_columns(results, "the table", total_layers=total_layers)
    else:
        path = expand_user(results)
        table, notes = read_results(path, total_layers=total_layers)
    found = recommend(table, epsilon=epsilon, bootstrap=bootstrap, seed=seed)
    answer = Answer.of(found.to_json())
    return replace(answer, warnings=(*notes, *answer.warnings))


def save_weights(
    path: str | Path,
    backbone: Backbone,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any] | None = None,
) -> None:
    """Writes weights of a backbone of your own as a file that `weights=` takes.

    Args:
        path: ends in .safetensors; replaced if it is there.
        backbone: whose weights they are.
        params: Linen parameters by the name of the unit.
        batch_stats: running statistics likewise.

    Raises:
        ValueError: arrays are missing, unknown or of another shape, or the file cannot
            be written.
    """
    trees = dict(params), dict(batch_stats or {})
    size = backbone.native_size
    tensors = own_names.flatten(backbone.name, *trees)
    convert_tensors(backbone, tensors, size=size, source=str(path))
    export_safetensors(expand_user(path), backbone, *trees, image_size=size)


def inline_svg(text: str) -> str:
    """An SVG file as a part of a page."""
    return text[text.index("<svg") :]


sweep.__signature__ = signature_of(sweep)
