"""What the benchmark can be asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.benchmark.peers import PEERS

GROWTH = {
    "depths": (2, 4, 8, 16),
    "seeds": (1, 2, 4, 8, 16),
    "images": (500, 1000, 2000, 4000, 8000),
}
Task = Literal["step", "grid", "growth", "accelerator"]
Model = Literal["effnetb0", "resnet50", "resnet152", "vgg16"]
Peer = Literal["ftjax", "pytorch", "keras-jax", "keras-tensorflow"]
Axis = Literal["depths", "seeds", "images"]


@dataclass(frozen=True)
class Options:
    """How fast is a sweep, beside the same work in PyTorch and Keras?"""

    task: Annotated[Task, tyro.conf.Positional]
    """Training steps, whole sweeps, sweeps of ftjax alone that grow, or steps and a
    sweep on one accelerator within ten minutes."""
    model: tuple[Model, ...] = ("effnetb0",)
    """Networks, one after the other."""
    peers: tuple[Peer, ...] = PEERS
    """Frameworks that take turns."""
    image_size: int = 96
    """Height and width in pixels."""
    batch_size: int = 32
    """Images per step."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """What the networks compute in. Default: bfloat16 on an accelerator."""
    rounds: int = 5
    """Turns of five steps."""
    depths: tuple[int, ...] = ()
    """In layers, of a step or a grid."""
    axes: tuple[Axis, ...] = ("depths", "seeds", "images")
    """What growth varies."""
    sizes: tuple[int, ...] = ()
    """Values along each of --axes."""
    epochs: int | None = None
    """Of a grid. Default: the paper's."""
    data: str = "digits"
    """Images of a grid or of growth."""
    data_dir: Path | None = None
    """Where TFDS keeps its prepared data sets."""
    train_size: int | None = None
    """Training images. Default: all."""
    val_size: int | None = None
    """Validation images. Default: all."""
    small: bool = False
    """Of accelerator: a sweep over a few images, to try it on a CPU."""
    out: Path = Path("runs/benchmark")
    """Folder of table and figure."""
