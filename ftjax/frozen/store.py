"""Activations on disk: used by every command that needs the same, within a budget.

A file is named by all that determines its content and carries a checksum
(`data.cache`), so one that reads well is the right one, whichever command wrote it.
Of several commands at once each keeps to its own budget. A file that is deleted stays
readable where it is mapped, or cannot be deleted there (Windows) and is passed over.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.data.cache import read_array, write_array
from ftjax.frozen.proof import Digests
from ftjax.frozen.sources import source_digest
from ftjax.machine.atomic import PARTIAL
from ftjax.machine.threads import pool_size

FILE_BYTES = 256  # more than header and checksum take
STALE_SECONDS = 3600  # a half-written file of this age was left by a killed command


class Store(NamedTuple):
    """A folder and the most bytes that it may hold."""

    folder: Path
    budget: int


class Recipe(NamedTuple):
    """An array that is read from disk or made.

    Attributes:
        split: ends the file's name.
        struct: shape and type.
        make: called if it must be made; yields its rows in order, (k, ...) at a time.
    """

    split: str
    struct: jax.ShapeDtypeStruct
    make: Callable[[], Iterable[np.ndarray]]

    @property
    def disk_dtype(self) -> str:
        """NumPy's name of the type on disk: bfloat16, unknown to it, as raw bits."""
        dtype = self.struct.dtype
        return "<u2" if dtype == jax.numpy.bfloat16 else dtype.str

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self.struct.size * self.struct.dtype.itemsize + FILE_BYTES


def content_name(
    network: Backbone,
    boundary: int,
    *,
    start: Digests,
    data_hash: str,
    image_size: int,
    batch_size: int,
    devices: int,
) -> str:
    """A hash of all that the activations before unit `boundary` depend on.

    The code that computes them belongs to it (`sources`). So do sizes of batches,
    devices, the threads of each (`cores.one_core_each`), XLA's flags (`xla.tune_xla`)
    and the versions of JAX and Flax: they change the rounding.

    Args:
        network: whose units compute in the type of the run.
        boundary: index of the unit whose inputs the activations are.
        start: digests of the pretrained leaves.
        data_hash: of images and labels.
        image_size: height and width, in pixels.
        batch_size: images that pass through the network at a time.
        devices: that share them.

    Raises:
        FileNotFoundError: ftjax is installed without its sources.
    """
    units = network[:boundary]
    names = {unit.name for unit in units}
    weights = sorted((leaf, value) for leaf, value in start.items() if leaf[1] in names)
    compiler = pool_size(), os.environ.get("XLA_FLAGS")
    versions = [version(name) for name in ("jax", "jaxlib", "flax")]
    platform = versions, jax.devices()[0].device_kind, devices, compiler
    sizes = boundary, image_size, batch_size
    code = source_digest()
    recipe = code, network.name, units, weights, data_hash, sizes, platform
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:32]


def load_or_make(
    store: Store, name: str, recipes: Sequence[Recipe], *, in_use: str
) -> list[np.ndarray]:
    """Maps arrays from disk; those that are missing or damaged are made and written.

    Args:
        store: where.
        name: of their content; begins the files' names.
        recipes: the arrays.
        in_use: name of what they are made from; its files are not deleted.

    Returns:
        Read-only arrays, mapped from disk.

    Raises:
        OSError: no room in the budget or on the disk, or the folder cannot be written.
    """
    paths = [store.folder / f"{name}-{recipe.split}.npy" for recipe in recipes]
    found = [read(path, recipe) for path, recipe in zip(paths, recipes, strict=True)]
    missing = [index for index, array in enumerate(found) if array is None]
    if missing:
        store.folder.mkdir(parents=True, exist_ok=True)
        for index in missing:
            paths[index].unlink(missing_ok=True)
        needed = sum(recipes[index].num_bytes for index in missing)
        make_room(store, needed, keep=(name, in_use))
    for index in missing:
        write(paths[index], recipes[index])
        found[index] = read(paths[index], recipes[index])
        if found[index] is None:
            raise OSError(errno.EIO, "a file does not read back as it was written")
    return found


def read(path: Path, recipe: Recipe) -> np.ndarray | None:
    """The array in a file, or None; the file is then the one used last."""
    stored = read_array(path, recipe.disk_dtype, recipe.struct.shape)
    if stored is None:
        return None
    with suppress(OSError):  # a folder that can only be read is as good
        path.touch()
    return stored.array.view(recipe.struct.dtype)


def write(path: Path, recipe: Recipe) -> None:
    """Makes an array and writes it row by row."""
    rows = (row.view(recipe.disk_dtype) for rows in recipe.make() for row in rows)
    write_array(path, recipe.disk_dtype, recipe.struct.shape, rows)


def make_room(store: Store, needed: int, keep: Collection[str]) -> None:
    """Deletes the files used longest ago until `needed` bytes more fit.

    Args:
        store: an existing folder, and its budget.
        needed: bytes that will be written.
        keep: names whose files stay.

    Raises:
        OSError: they cannot fit; nothing is deleted for it.
    """
    files = stored_files(store.folder)
    held = sum(file.size for file in files)
    room = min(store.budget, held + shutil.disk_usage(store.folder).free) - needed
    old = [file for file in files if not is_kept(file, keep)]
    full = OSError(
        errno.ENOSPC,
        f"no room for {needed / 1e9:.2f} GB in {store.folder}: make room there, or "
        "choose a larger --disk-gb",
    )
    if held - sum(file.size for file in old) > room:
        raise full
    for file in sorted(old, key=lambda file: file.used):
        if held <= room:
            return
        with suppress(PermissionError):  # on Windows: mapped by another command
            file.path.unlink(missing_ok=True)
            held -= file.size
    if held > room:
        raise full


class StoredFile(NamedTuple):
    """A file of the store, its bytes, and when it was used, in seconds since 1970."""

    path: Path
    size: int
    used: float


def stored_files(folder: Path) -> list[StoredFile]:
    """Arrays and half-written ones; others that vanish meanwhile are left out."""
    files = []
    for path in folder.iterdir():
        if path.suffix in (".npy", PARTIAL):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append(StoredFile(path, status.st_size, status.st_mtime))
    return files


def is_kept(file: StoredFile, keep: Collection[str]) -> bool:
    """Whether a file has one of these names, or is being written."""
    if file.path.suffix == PARTIAL:
        return time.time() - file.used < STALE_SECONDS
    return file.path.name.startswith(tuple(f"{name}-" for name in keep))
