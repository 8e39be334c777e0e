"""Trees of arrays: nested dicts by unit, then layer, then leaf."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Tree = dict[str, Any]


def total_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


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
