"""A digest of the source code that determines what frozen units compute.

It is a part of the name of stored activations, so that none outlives a change of the
code that made them. A comment changes it too: that costs one more pass.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

# Folders and files of the package. Not those of images and weights, which activations
# know by their content, and not what only the parts that are trained pass through.
DETERMINING = (
    "kernels",
    "backbones",
    "data/augment.py",
    "frozen/forward.py",
    "machine/mesh.py",
    "machine/stacking.py",
    "machine/workers.py",
    "machine/xla.py",
)


@cache
def source_digest() -> str:
    """Of the package that runs; read once."""
    return digest_sources(resources.files("ftjax"))


def digest_sources(package: Traversable) -> str:
    """SHA-256 (hex) over the names and the contents of the determining files.

    Args:
        package: the folder of ftjax, also inside an archive.

    Raises:
        FileNotFoundError: a file or folder is missing, as in a package without sources.
    """
    digest = hashlib.sha256()
    for place in DETERMINING:
        found = sorted(python_files(package.joinpath(*place.split("/")), place))
        if not found:
            raise FileNotFoundError(
                f"ftjax is installed without the sources of {place}, so activations "
                "cannot be stored: install it from PyPI or from a checkout"
            )
        for name, content in found:
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def python_files(place: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the source files at or below a place."""
    if place.is_dir():
        for entry in place.iterdir():
            yield from python_files(entry, f"{name}/{entry.name}")
    elif place.is_file() and name.endswith(".py"):
        yield name, place.read_bytes()
