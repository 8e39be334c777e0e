"""The trainable subtree on disk, with orbax, and a digest that tells what was written.

Of 58 single bits flipped in a checkpoint, 6 gave other numbers and no error from Orbax.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ftjax.machine.files import Damaged, set_aside
from ftjax.trees import flatten

LAYOUT = "layout"  # of the vectors; a key of the metadata
DIGEST = "sha256"  # likewise: of the vectors and of the rest of the metadata
TRIAL = "trial"  # likewise: whose checkpoint it is
ROOM = 1 << 18  # bytes of its many small files beside the vectors, and then some
_orbax = threading.Lock()  # its operations count on one at a time


class Saved(NamedTuple):
    """One checkpoint.

    Attributes:
        leaves: arrays by their path in the state.
        meta: what was saved beside them; plain values.
    """

    leaves: dict[str, np.ndarray]
    meta: dict[str, Any]


class Checkpoints:
    """The newest checkpoint of one trial; a new one replaces it when it is complete.

    All arrays of one type are written as a single vector: the 757 leaves of a deep
    EfficientNetB0 took Orbax 1.9 s of a core one by one, and 0.15 s so. Of several
    processes only the first one touches the disk, and only there may `restore` be
    called.

    Args:
        directory: of the store; made if it is not there.
        trial: whose it is: that of another is not read.
    """

    def __init__(self, directory: Path, trial: str = ""):
        self._manager, self._directory, self._trial = None, directory, trial
        if jax.process_index() != 0:
            return
        self._open()

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1,
            cleanup_tmp_directories=True,
            create=False,  # Orbax makes no folder where it must not wait for others
            enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}
            ),
        )
        with _orbax:
            self._manager = ocp.CheckpointManager(
                self._directory.absolute(), options=options
            )

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes all arrays of `state`, and `meta` with them, as one unit.

        Of several processes the first one needs all of every array (`mesh.fetch`).

        Raises:
            OSError: it cannot be written.
        """
        if self._manager is None:
            return
        vectors, layout = pack(jax.device_get(flatten(state)))
        meta = {**meta, LAYOUT: layout, TRIAL: self._trial}
        needed = ROOM + sum(vector.nbytes for vector in vectors.values())
        if shutil.disk_usage(self._directory).free < needed:  # TensorStore would print
            folder = str(self._directory)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(vectors),
            meta=ocp.args.JsonSave({**meta, DIGEST: digest(vectors, meta)}),
        )
        try:
            with _orbax, raised_only():
                self._manager.save(step, args=args)
            if self._manager.latest_step() != step:  # it passes some over
                raise OSError(f"Orbax wrote no step {step}")
        except Exception as error:
            raise OSError(
                f"{self._directory} cannot be written: {reason(error)}"
            ) from error

    def newest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none, or not here."""
        return None if self._manager is None else self._manager.latest_step()

    def restore(self) -> Saved | None:
        """The newest complete checkpoint, or None.

        Raises:
            Damaged: it is not what was written, or another trial's.
        """
        assert self._manager is not None, "only the first process restores"
        step = self.newest()
        if step is None:
            return None
        path = self._directory / str(step)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()
        )
        try:
            with _orbax, raised_only():
                restored = self._manager.restore(step, args=args)
            state, meta = restored["state"], dict(restored["meta"])
            arrays = {name: np.asarray(array) for name, array in state.items()}
            written = meta.pop(DIGEST, None)  # earlier versions wrote none
            same = written in (None, digest(arrays, meta))
            trial, layout = meta.pop(TRIAL, self._trial), meta.pop(LAYOUT, None)
            if same and layout is not None:  # earlier versions wrote leaf by leaf
                arrays = unpack(arrays, layout)
        except (MemoryError, PermissionError):
            raise
        except Exception:  # Orbax and TensorStore raise what they like
            raise Damaged(f"{path} cannot be read") from None
        if not same:
            raise Damaged(f"{path} is not what was written")
        if self._trial not in ("", trial):
            raise Damaged(f"{path} is of trial {trial}")
        return Saved(arrays, meta)

    def set_aside(self) -> str:
        """Renames what is there, so that it is not read again; its new name."""
        self.close()
        moved = set_aside(self._directory)
        self._open()
        return moved.name if moved else ""

    def close(self) -> None:
        """Frees what Orbax holds."""
        if self._manager is not None:
            with _orbax:
                self._manager.close()


@contextmanager
def raised_only() -> Iterator[None]:
    """Within it the threads of Orbax log no errors: the caller gets and says them.

    On a full disk each wrote its own page beside our line.
    """

    def drop(record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


def reason(error: Exception) -> str:
    """Why nothing was written; TensorStore has errors of its own, of any length."""
    text = str(error).strip()
    if found := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(found[1]))
    return (text.splitlines() or [type(error).__name__])[0]


def digest(vectors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """SHA-256 of arrays by name, and of the plain values beside them."""
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, vector in sorted(vectors.items()):
        total.update(f"{name} {vector.dtype} {vector.shape}".encode())
        total.update(np.ascontiguousarray(vector).reshape(-1).view(np.uint8))
    return total.hexdigest()


def newest_step(directory: Path) -> int:
    """The step of the newest complete checkpoint, 0 if there is none; opens nothing."""
    if not directory.is_dir():
        return 0
    names = (path.name for path in directory.iterdir())
    return max((int(name) for name in names if name.isdecimal()), default=0)


def pack(
    leaves: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[tuple[str, str, tuple[int, ...]]]]:
    """Joins arrays to one vector per type.

    Args:
        leaves: arrays by name.

    Returns:
        Vectors by type, and of every leaf in their order: name, type and shape.
    """
    parts: dict[str, list[np.ndarray]] = {}
    layout = []
    for name, leaf in leaves.items():
        parts.setdefault(str(leaf.dtype), []).append(leaf.ravel())
        layout.append((name, str(leaf.dtype), leaf.shape))
    return {dtype: np.concatenate(own) for dtype, own in parts.items()}, layout


def unpack(
    vectors: Mapping[str, np.ndarray], layout: Iterable[Sequence]
) -> dict[str, np.ndarray]:
    """The leaves that `pack` joined, by name."""
    read = dict.fromkeys(vectors, 0)
    leaves = {}
    for name, dtype, shape in layout:
        start, size = read[dtype], math.prod(shape)
        leaves[name] = vectors[dtype][start : start + size].reshape(shape)
        read[dtype] = start + size
    return leaves
