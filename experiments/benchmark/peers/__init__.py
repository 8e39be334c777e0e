"""The same fine-tuning in ftjax, PyTorch and Keras, for `experiments.benchmark`.

A peer is a module with two generators, which do the next piece of work when asked and
say how many seconds it took, so that the benchmark can let peers take turns:

    steps(work)  the first step with all that it compiles, then five steps at a time
    grid(work)   all depths of a sweep, one at a time, from loaded images to results;
                 ftjax does all in its first turn, and then says how it spent it

Each runs in a process of its own: Keras takes one backend per process.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection

import numpy as np

PEERS = ("ftjax", "pytorch", "keras-jax", "keras-tensorflow")
STEPS = 5  # between two turns


@dataclass(frozen=True)
class Work:
    """What every peer is asked to do.

    Attributes:
        model: as `--model` calls it.
        image_size: height and width in pixels.
        batch_size: images per step.
        depths: layers unfrozen from the top, as Keras counts them.
        seeds: number of seeds.
        epochs: of each trial of a grid.
        images: path of an .npz with train_images (n, size, size, 3) uint8,
            train_labels, val_images and val_labels.
        data: of ftjax' own sweep: name or folder of the data set.
        data_dir: where TFDS keeps it.
        train_size: training images of a grid.
        val_size: validation images of a grid.
        device: cpu or gpu, of all peers.
        dtype: that the network computes in; parameters are float32.
    """

    model: str
    image_size: int
    batch_size: int
    depths: tuple[int, ...]
    seeds: int = 1
    epochs: int = 1
    images: str = ""
    data: str = "digits"
    data_dir: str | None = None
    train_size: int | None = None
    val_size: int | None = None
    device: str = "cpu"
    dtype: str = "float32"


def random_batch(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Images (batch, size, size, 3) uint8 and labels (batch,) of 10 classes."""
    rng = np.random.default_rng(0)
    shape = (work.batch_size, work.image_size, work.image_size, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    return images, rng.integers(0, 10, work.batch_size)


def made_images(work: Work) -> dict[str, np.ndarray]:
    """Noise in the place of a data set, named as in `Work.images`."""
    rng = np.random.default_rng(1)
    found = {}
    for name, count in (("train", work.train_size), ("val", work.val_size)):
        shape = (count, work.image_size, work.image_size, 3)
        found[f"{name}_images"] = rng.integers(0, 256, shape, np.uint8)
        found[f"{name}_labels"] = np.arange(count) % 10
    return found


def seconds_of(action) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def serve(peer: str, task: str, work: Work, pipe: Connection) -> None:
    """Runs in a process of its own: sends one measurement for every request.

    Before, None when the framework is imported. A measurement is seconds, or the text
    of an error, after which the process ends.
    """
    name, _, backend = peer.partition("-")
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    try:
        module = import_module(f"experiments.benchmark.peers.with_{name}")
        turns: Iterator[float] = getattr(module, task)(work)
        pipe.send(None)
        while pipe.recv():
            pipe.send(next(turns, None))
    except Exception as error:  # whatever a framework raises; the others go on
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
