"""How many top layers of a pretrained CNN to unfreeze, and why.

run = ftjax.sweep("my_images", model="resnet50", depths=[0, 32, 66])
print(run.answer.sentence)
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import ftjax.sweep as _package

if TYPE_CHECKING:
    from ftjax.api import Answer as Answer
    from ftjax.api import Run as Run
    from ftjax.api import fit as fit
    from ftjax.api import open as open
    from ftjax.api import save_weights as save_weights
    from ftjax.api import sweep as sweep
    from ftjax.backbones.backbone import Backbone as Backbone
    from ftjax.backbones.backbone import Layer as Layer
    from ftjax.backbones.backbone import Unit as Unit
    from ftjax.backbones.preprocessing import Preprocessing as Preprocessing
    from ftjax.predictor import Predictor as Predictor
    from ftjax.predictor import load as load
    from ftjax.sweep.events import Event as Event

    __version__: str

# JAX and Flax take a second to import: each name is imported when it is asked for.
MODULES = {
    "Answer": "ftjax.api",
    "Backbone": "ftjax.backbones.backbone",
    "Event": "ftjax.sweep.events",
    "Layer": "ftjax.backbones.backbone",
    "Predictor": "ftjax.predictor",
    "Preprocessing": "ftjax.backbones.preprocessing",
    "Run": "ftjax.api",
    "Unit": "ftjax.backbones.backbone",
    "fit": "ftjax.api",
    "load": "ftjax.predictor",
    "open": "ftjax.api",
    "save_weights": "ftjax.api",
    "sweep": "ftjax.api",
}
__all__ = [
    "__version__",
    "Answer",
    "Backbone",
    "Event",
    "Layer",
    "Predictor",
    "Preprocessing",
    "Run",
    "Unit",
    "fit",
    "load",
    "open",
    "save_weights",
    "sweep",
]


def __getattr__(name: str):
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ftjax")
        except PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class CallablePackage(ModuleType):
    """`ftjax.sweep` is a package, which Python binds to that name; it is called too."""

    def __call__(self, *args, **kwargs):
        return __getattr__("sweep")(*args, **kwargs)

    @property
    def __signature__(self):
        return __getattr__("sweep").__signature__

    @property
    def __doc__(self):
        return __getattr__("sweep").__doc__


_package.__class__ = CallablePackage
