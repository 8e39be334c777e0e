"""The trainable subtree on disk, with orbax."""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ftjax.trees import flatten

LAYOUT = "layout"  # of the vectors; a key of the metadata
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
    """

    def __init__(self, directory: Path):
        self._manager = None
        if jax.process_index() != 0:
            return
        directory.mkdir(parents=True, exist_ok=True)
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
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes all arrays of `state`, and `meta` with them, as one unit.

        Of several processes the first one needs all of every array (`mesh.fetch`).
        """
        if self._manager is None:
            return
        vectors, layout = pack(jax.device_get(flatten(state)))
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(vectors),
            meta=ocp.args.JsonSave({**meta, LAYOUT: layout}),
        )
        with _orbax:
            self._manager.save(step, args=args)

    def newest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none, or not here."""
        return None if self._manager is None else self._manager.latest_step()

    def restore(self) -> Saved | None:
        """The newest complete checkpoint, or None.

        Raises:
            ValueError: it cannot be read.
        """
        assert self._manager is not None, "only the first process restores"
        step = self.newest()
        if step is None:
            return None
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()
        )
        with _orbax:
            restored = self._manager.restore(step, args=args)
        arrays = {name: np.asarray(array) for name, array in restored["state"].items()}
        meta = dict(restored["meta"])
        layout = meta.pop(LAYOUT, None)  # earlier versions wrote leaf by leaf
        return Saved(arrays if layout is None else unpack(arrays, layout), meta)

    def close(self) -> None:
        """Frees what Orbax holds."""
        if self._manager is not None:
            with _orbax:
                self._manager.close()


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
