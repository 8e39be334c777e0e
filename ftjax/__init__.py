"""How many top layers of a pretrained CNN to unfreeze, and why."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftjax.predictor import load as load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    # JAX and Flax take a second to import, and most commands of the package do not
    # load a predictor.
    if name == "load":
        from ftjax.predictor import load

        return load
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ftjax")
        except PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
