"""The trainable subtree on disk, with orbax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp


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

    Saving goes on in the background; `close` waits for it. Of several processes only
    the first one touches the disk, and only there may `restore` be called.
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
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}
            ),
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes all arrays of `state`, and `meta` with them, as one unit.

        Of several processes the first one needs all of every array (`mesh.fetch`).
        """
        if self._manager is None:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(flatten(state)),
                meta=ocp.args.JsonSave(dict(meta)),
            ),
        )

    def restore(self) -> Saved | None:
        """The newest complete checkpoint, or None.

        Raises:
            ValueError: it cannot be read.
        """
        assert self._manager is not None, "only the first process restores"
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        leaves = {name: np.asarray(leaf) for name, leaf in restored["state"].items()}
        return Saved(leaves, restored["meta"])

    def close(self) -> None:
        """Waits until everything is on disk."""
        if self._manager is None:
            return
        self._manager.wait_until_finished()
        self._manager.close()


def flatten(state: Any) -> dict[str, Any]:
    """Leaves by their path, e.g. `params/top/conv/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {path_name(path): leaf for path, leaf in leaves}


def unflatten(template: Any, leaves: Mapping[str, np.ndarray]) -> Any:
    """Puts leaves back into a tree of the same structure.

    Raises:
        ValueError: leaves are missing, unknown or of another shape; all are listed.
    """
    expected, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [path_name(path) for path, _ in expected]
    problems = [f"unknown {name}" for name in leaves if name not in set(names)]
    for name, (_, leaf) in zip(names, expected, strict=True):
        if name not in leaves:
            problems.append(f"missing {name}")
        elif leaves[name].shape != np.shape(leaf):
            problems.append(
                f"{name} has shape {leaves[name].shape} instead of {np.shape(leaf)}"
            )
    if problems:
        raise ValueError(f"checkpoint does not fit the network: {'; '.join(problems)}")
    return jax.tree_util.tree_unflatten(structure, [leaves[name] for name in names])


def path_name(path: tuple) -> str:
    """A tree path as text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
