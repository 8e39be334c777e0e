"""A trained trial, ready to classify images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from ftjax.analysis.where import rows_where
from ftjax.axes import LINEAR
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import with_head
from ftjax.backbones.preprocessing import check_range
from ftjax.batch_norm import FROZEN
from ftjax.data.decode import decode_image, resize_square
from ftjax.data.formats import EXTENSIONS
from ftjax.depth import make_cut
from ftjax.frozen.forward import batches, infer
from ftjax.machine.files import Damaged, read_json
from ftjax.machine.paths import expand_user
from ftjax.stats.temperature import fit_temperature
from ftjax.sweep import records
from ftjax.sweep.checkpoint import Checkpoints
from ftjax.training.suffix import make_suffix
from ftjax.trees import Tree
from ftjax.weights import own_names
from ftjax.weights.convert import convert, leaf_shapes
from ftjax.weights.pretrained import load_pretrained

BATCH_SIZE = 32


class Prediction(NamedTuple):
    """The answer for one image.

    Attributes:
        class_name: the most probable class.
        probability: of that class, 0..1.
        probabilities: of every class, in the order of `Predictor.class_names`.
    """

    class_name: str
    probability: float
    probabilities: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """A trained network with what it needs to take an image.

    Attributes:
        network: backbone with head.
        params: of all units.
        batch_stats: of all units.
        class_names: in the order of the logits.
        image_size: height and width of its images, in pixels.
        trial: id of the trial it is from.
        depth_layers: how many layers were unfrozen.
        bn: BatchNorm policy it was trained with.
        val_accuracy: on the run's validation set, 0..1.
        bits: of the values of its 16-bit images, None if it had none.
        temperature: that its logits are divided by before they become probabilities,
            fitted on the validation images (`fit_temperature`).
    """

    network: Backbone
    params: Tree
    batch_stats: Tree
    class_names: tuple[str, ...]
    image_size: int
    trial: str
    depth_layers: int
    bn: str
    val_accuracy: float
    bits: int | None = None
    temperature: float = 1.0

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) of images at the network's size.

        Args:
            images: (n, image_size, image_size, 3) RGB in 0..255, integers or floats.

        Raises:
            ValueError: another shape, or values that are not 0..255.
        """
        images = check_range(images)
        size = self.image_size
        if images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"images of shape {images.shape}; this network takes (n, {size}, "
                f"{size}, 3): use `predict_files`, or `resize` first"
            )
        batch_size = min(BATCH_SIZE, len(images))
        found = []
        for rows, count in batches(images, batch_size):
            x = jax.device_put(rows)
            y = infer(self.network[:], self.params, self.batch_stats, x)
            found.append(np.asarray(y)[:count])
        return np.concatenate(found)

    def predict(self, images: np.ndarray) -> list[Prediction]:
        """Classes of images at the network's size; arguments as of `logits`."""
        answers = []
        scaled = self.logits(images) / self.temperature
        for row in np.asarray(jax.nn.softmax(scaled)):
            best = int(row.argmax())
            answers.append(Prediction(self.class_names[best], float(row[best]), row))
        return answers

    def predict_files(self, paths: Iterable[str | Path]) -> list[Prediction]:
        """Classes of image files, cut and resized as the training images were.

        Raises:
            ValueError: a file is missing or is no image.
        """
        paths = list(paths)
        answers = []
        for first in range(0, len(paths), BATCH_SIZE):  # they may be many
            some = paths[first : first + BATCH_SIZE]
            answers += self.predict(np.stack([self.read(path) for path in some]))
        return answers

    def predict_table(self, paths: Iterable[str | Path]) -> pd.DataFrame:
        """Classes of image files and of all images in folders, also inner ones.

        Returns:
            A row per file: `file`, `class`, `probability`, and `p_<class>` for every
            class.

        Raises:
            ValueError: nothing is found, or a file is missing or is no image.
        """
        files = list_images(paths)
        answers = self.predict_files(files)
        table = pd.DataFrame(
            [answer.probabilities for answer in answers],
            columns=[f"p_{name}" for name in self.class_names],
        )
        table.insert(0, "probability", [answer.probability for answer in answers])
        table.insert(0, "class", [answer.class_name for answer in answers])
        table.insert(0, "file", [str(file) for file in files])
        return table

    def read(self, path: str | Path) -> np.ndarray:
        """An image file at the network's size: uint8 (image_size, image_size, 3)."""
        try:
            image = decode_image(Path(path).read_bytes(), bits=self.bits)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        if image is None:
            raise ValueError(f"{path} is not an image that can be read in full")
        return self.resize(image)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) to the network's size, as in training."""
        return resize_square(image, self.image_size)


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, and the image files in folders, in order of their names.

    Raises:
        ValueError: a folder has none, or nothing is given.
    """
    files = []
    for path in map(expand_user, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inner = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in EXTENSIONS and file.is_file()
        )
        if not inner:
            raise ValueError(f"{path} holds no images: files {' '.join(EXTENSIONS)}")
        files += inner
    if not files:
        raise ValueError("no image files: give some, or a folder of them")
    return files


def load(
    run_dir: str | Path,
    depth: int | None = None,
    *,
    bn: str | None = None,
    seed: int | None = None,
    where: Sequence[str] = (),
    offline: bool = False,
) -> Predictor:
    """Loads a finished trial of a run.

    Args:
        run_dir: what `--out` named.
        depth: layers unfrozen from the top. None: the recommended depth and policy,
            or, where the run has no recommendation, those of the best trial.
        bn: BatchNorm policy; None takes any.
        seed: of the trial; None takes any. Of several trials that fit, the one with
            the best validation accuracy is taken.
        where: conditions on its row of results.csv, as `lr=0.001`; they go before what
            the run recommends.
        offline: open no network connection to get the pretrained weights.

    Raises:
        ValueError: no run, no such trial, or the pretrained weights have changed.
    """
    run_dir = Path(run_dir).expanduser()
    run = read_json(run_dir / "config.json")
    if run is None:
        raise ValueError(
            f"{run_dir} holds no run: config.json is missing; give the folder that "
            "--out of the sweep named"
        )
    class_names = tuple(run["class_names"])
    backbone = make_backbone(run["config"]["model"])
    network = with_head(backbone, len(class_names))
    named = {condition.partition("=")[0] for condition in where}
    if depth is None and not named & {"depth_layers", "trial"}:
        advice = read_json(run_dir / "recommendation.json") or {}
        depth = advice.get("depth_layers")
        if bn is None and "bn" not in named:
            bn = advice.get("bn")
    record = choose_trial(run_dir, network, depth, bn, seed, where)
    trained = record["config"]
    network = with_head(backbone, len(class_names), trained.get("head", LINEAR))
    size = trained["image_size"]
    pretrained = load_pretrained(
        backbone,
        run["config"]["weights"],
        size=size,
        offline=offline,
    )
    if pretrained.source != trained["weights"]:
        raise ValueError(
            f"the pretrained weights are {pretrained.source}, but trial "
            f"{record['trial']} started from {trained['weights']}: give it that file"
        )
    tensors = own_names.flatten(network.name, pretrained.params, pretrained.batch_stats)
    folder = records.trial_folder(run_dir, record["trial"])
    tensors |= read_checkpoint(folder / "checkpoint", network.name)
    shapes = leaf_shapes(network, size)
    origins = own_names.origins(network, shapes)
    params, batch_stats = convert(
        tensors, origins, shapes, source=f"trial {record['trial']}"
    )
    return Predictor(
        network=network,
        params=jax.device_put(params),
        batch_stats=jax.device_put(batch_stats),
        class_names=class_names,
        image_size=size,
        trial=record["trial"],
        depth_layers=trained["depth"],
        bn=trained["batch_norm"],
        val_accuracy=record["epochs"][-1]["val_accuracy"],
        bits=run.get("data_bits"),
        temperature=temperature_of(run_dir, record["trial"]),
    )


def temperature_of(run_dir: Path, trial: str) -> float:
    """Fitted on the validation logits that the trial kept; 1 where it kept none."""
    logits, labels = records.read_logits(run_dir, trial), records.read_labels(run_dir)
    if logits is None or labels is None or logits.shape[1] != len(labels):
        return 1.0
    return fit_temperature(logits[-1], labels)


def choose_trial(
    run_dir: Path,
    network: Backbone,
    depth: int | None,
    bn: str | None,
    seed: int | None,
    where: Sequence[str],
) -> dict[str, Any]:
    """The record of the finished trial that fits, the best of several.

    Only trials in the run's results.csv: the folder keeps those of earlier commands
    too, with other rates or other images. Of a trial of several rows (epochs that were
    read off its way) only the weights of the last epoch are kept.

    Raises:
        ValueError: none fits; says which there are.
    """
    path = run_dir / "results.csv"
    if not path.is_file():
        raise ValueError(f"{run_dir} has no results.csv yet: no trial is finished")
    rows = pd.read_csv(path, dtype={"trial": str})
    rows = rows_where(rows[rows["status"] == "done"], where)
    found = {name: records.read_trial(run_dir, name) for name in rows["trial"].unique()}
    done = [record for record in found.values() if record is not None]
    if any(condition.startswith("epochs=") for condition in where):
        epochs = int(rows["epochs"].iloc[0])
        done = [record for record in done if len(record["epochs"]) == epochs]
        if not done:
            raise ValueError(
                f"{run_dir} has no weights after {epochs} epochs: those trials went on "
                "and keep those of their last epoch; leave epochs out"
            )
    fitting = done
    if depth is not None:
        cut = make_cut(network, depth)
        fitting = [each for each in fitting if each["config"]["depth"] == cut.same_set]
        if bn is not None and not any(
            part.batch_norm for part in make_suffix(network, cut, bn)
        ):
            bn = FROZEN.name  # policies that are equal here share that trial
    if bn is not None:
        fitting = [each for each in fitting if each["config"]["batch_norm"] == bn]
    if seed is not None:
        fitting = [each for each in fitting if each["config"]["seed"] == seed]
    if not fitting:
        raise ValueError(
            f"{run_dir} has no finished trial of depth {depth}, bn {bn}, seed {seed}"
            f"{''.join(f', {condition}' for condition in where)}; it has "
            f"{describe(done)}"
        )
    return max(fitting, key=lambda record: record["epochs"][-1]["val_accuracy"])


def describe(done: Sequence[dict[str, Any]]) -> str:
    """Which trials there are, for a message."""
    if not done:
        return "none"
    values = {
        key: sorted({record["config"][key] for record in done})
        for key in ("depth", "batch_norm", "seed")
    }
    names = {"depth": "depths", "batch_norm": "bn", "seed": "seeds"}
    return ", ".join(
        f"{names[key]} {' '.join(map(str, found))}" for key, found in values.items()
    )


def read_checkpoint(folder: Path, model: str) -> dict[str, np.ndarray]:
    """Parameters and statistics of a checkpoint, by our names of tensors.

    Raises:
        ValueError: there is none, or it is not what was written.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: the trial's checkpoint was removed")
    checkpoints = Checkpoints(folder, folder.parent.name)
    try:
        saved = checkpoints.restore()
    except Damaged as error:
        raise Damaged(
            f"{error}; remove {folder.parent}, and the sweep's command trains it again"
        ) from None
    finally:
        checkpoints.close()
    if saved is None:
        raise ValueError(f"{folder} holds no complete checkpoint")
    tensors = {}
    for name, value in saved.leaves.items():
        _, _, path = name.partition("/")
        if path.startswith(tuple(f"{each}/" for each in own_names.COLLECTIONS)):
            tensors[f"{model}/{path}"] = value
    return tensors
