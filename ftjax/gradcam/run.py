"""A sweep's folder and its images, ready for heat maps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.tuning import tuned_rows
from ftjax.analysis.where import rows_where
from ftjax.data import Dataset, load_object_masks
from ftjax.data import load as load_data
from ftjax.machine.files import read_json

IMAGES = 50  # measured, where the command names files for the figure


class Run(NamedTuple):
    """A sweep's folder.

    Attributes:
        folder: of the run.
        rows: of its results.csv: finished trials of one policy and seed.
        tested: finished depths of any policy, in layers.
        measured: its recommendation.json, or empty.
        bn: BatchNorm policy of the trials looked at.
        seed: of the trials looked at.
        source: arguments of `data.load` for its images.
        dataset: its images.
    """

    folder: Path
    rows: pd.DataFrame
    tested: tuple[int, ...]
    measured: Mapping[str, Any]
    bn: str
    seed: int
    source: Mapping[str, Any]
    dataset: Dataset

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that can be looked at, in layers."""
        return tuple(sorted({int(depth) for depth in self.rows["depth_layers"]}))

    def row(self, depth: int) -> pd.Series:
        """Of the depth's trial in results.csv, that of its last epoch."""
        rows = self.rows[self.rows["depth_layers"] == depth]
        return rows.loc[rows["epochs"].idxmax()]


class Images(NamedTuple):
    """What is measured, and what is shown.

    Attributes:
        images: uint8 (n, size, size, 3), class-balanced, from the validation set.
        labels: (n,).
        masks: bool (n, size, size), or None.
        shown: uint8 (m, size, size, 3), of the figure.
        shown_labels: (m,), or None where they are not known.
        captions: of the images shown.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    shown: np.ndarray
    shown_labels: np.ndarray | None
    captions: tuple[str, ...]


def open_run(folder: Path, bn: str | None, seed: int, where: Sequence[str] = ()) -> Run:
    """Reads a sweep's records and its images.

    Args:
        folder: of the sweep.
        bn: BatchNorm policy of the trials; None: the recommended one.
        seed: of the trials.
        where: conditions on their rows of results.csv, as `lr=0.001`.

    Raises:
        ValueError: the folder or its data cannot be read, or no trial of that policy
            and seed is finished.
    """
    saved = read_json(folder / "config.json")
    if saved is None or not (folder / "results.csv").is_file():
        raise ValueError(
            f"{folder} holds no sweep (config.json and results.csv); give the --out "
            "folder of a sweep"
        )
    results = pd.read_csv(folder / "results.csv")
    done = tuned_rows(rows_where(results[results["status"] == "done"], where))
    measured = read_json(folder / "recommendation.json") or {}
    asked = [each[3:] for each in where if each.startswith("bn=")]
    bn = bn or (asked or [measured.get("bn")])[0] or str(results["bn"].iloc[0])
    rows = done[(done["bn"] == bn) & (done["seed"] == seed)]
    if rows.empty:
        pairs = sorted(
            {f"--bn {row.bn} --seed {row.seed}" for row in done.itertuples()}
        )
        raise ValueError(
            f"{folder} has no finished trial with --bn {bn} --seed {seed}; it has "
            f"{', '.join(pairs) or 'none at all'}"
        )
    config = saved["config"]
    names = "data_dir image_size train_size val_size test_size".split()
    source = {"name": config["data"], **{name: config.get(name) for name in names}}
    source["classes"] = config.get("classes", ())
    dataset = load_data(**source)
    if not set(rows["data_hash"]) <= {dataset.content_hash, *dataset.smaller.values()}:
        raise ValueError(
            f"the images of {config['data']!r} have changed since {folder} was made; "
            "run the sweep again"
        )
    tested = tuple(sorted({int(depth) for depth in done["depth_layers"]}))
    return Run(folder, rows, tested, measured, bn, seed, source, dataset)


def choose_depths(run: Run, asked: Sequence[int]) -> tuple[int, ...]:
    """The depths to look at; the shallowest of the run always comes first.

    Raises:
        ValueError: a depth was not trained.
    """
    missing = [depth for depth in asked if depth not in run.depths]
    if missing:
        raise ValueError(
            f"depth {missing[0]} has no finished trial (bn {run.bn}, seed {run.seed}); "
            f"--depth takes {' '.join(map(str, run.depths))}"
        )
    shallowest, deepest = run.depths[0], run.depths[-1]
    best = run.measured.get("depth_layers")
    after = best if best in run.depths and best > shallowest else deepest
    return tuple(sorted({shallowest, *(asked or (after,))}))


def choose_images(run: Run, asked: Sequence[str], shown: int) -> Images:
    """The images to measure and those to show.

    Args:
        run: with the validation images.
        asked: one number, or image files.
        shown: how many validation images the figure has.

    Raises:
        ValueError: a file cannot be read, or a number is out of range.
    """
    names, val = run.dataset.class_names, run.dataset.val
    numbers = [word for word in asked if word.lstrip("-").isdigit()]
    if numbers and len(asked) > 1:
        raise ValueError(
            f"--images {' '.join(asked)}: give one number or image files, not both"
        )
    count = int(numbers[0]) if numbers else IMAGES
    if count < 1:
        raise ValueError(f"--images {count} is too small: 1 or more")
    images, labels = np.asarray(val.images[:count]), np.asarray(val.labels[:count])
    if numbers or not asked:
        # The first images of a class-balanced order are of different classes.
        captions = tuple(names[label] for label in labels[:shown])
        return Images(images, labels, None, images[:shown], labels[:shown], captions)
    return Images(images, labels, None, np.zeros(0), None, tuple(asked))


def read_files(chosen: Images, read: Callable[[str], np.ndarray]) -> Images:
    """Reads the files of the figure, if it is of files and they are not read yet.

    Args:
        chosen: of `choose_images`.
        read: gives a file as the network's own images were read.
    """
    if len(chosen.shown):
        return chosen
    images = np.stack([read(path) for path in chosen.captions])
    names = tuple(Path(path).name for path in chosen.captions)
    return chosen._replace(shown=images, captions=names)


def find_masks(run: Run, images: Images, path: Path | None) -> np.ndarray | None:
    """Where the objects are: from a file, else from the boxes of the data set.

    Returns:
        bool (n, size, size), or None if neither is there.

    Raises:
        ValueError: the file does not fit.
    """
    if path is not None:
        return read_masks(path, images.images.shape)
    return load_object_masks(**run.source, count=len(images.images))


def read_masks(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Masks for the images that are measured.

    Args:
        path: of a .npy file.
        shape: of those images, (n, size, size, 3).

    Raises:
        ValueError: no such file, or it does not fit.
    """
    try:
        masks = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--masks {path} cannot be read: {error}") from None
    needed = shape[:3]
    if masks.dtype != bool or masks.shape[1:] != needed[1:] or len(masks) < needed[0]:
        raise ValueError(
            f"--masks {path} is {masks.dtype} of shape {masks.shape}; needed: bool of "
            f"shape {needed} (--images says how many images)"
        )
    return masks[: needed[0]]


def check_target(run: Run, target: str) -> None:
    """Raises ValueError if the target is no class."""
    names = run.dataset.class_names
    if target not in ("true", "predicted", *names):
        raise ValueError(
            f"unknown --target {target!r}; allowed: true, predicted, or one of "
            f"{', '.join(names)}"
        )
