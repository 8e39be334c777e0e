"""What a forward pass keeps for the backward pass, without copies.

A compiled program copies an input that it returns, and an array that it returns twice.
The pullback of a unit holds the unit's input, its kernels and sometimes its output, so
the activations of a network would be there twice, and every kernel would be copied in
every step (240 MB in ResNet152).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from ftjax.trees import Tree


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["own"],
    meta_fields=["sources", "structure"],
)
@dataclass(frozen=True)
class Residuals:
    """A pullback whose leaves are left out where they are at hand anyway.

    Attributes:
        own: the other leaves.
        sources: for every leaf its number among those at hand, None if it is in `own`.
        structure: of the pullback.
    """

    own: list[jax.Array]
    sources: tuple[int | None, ...]
    structure: Any

    def complete(self, at_hand: Tree) -> Callable:
        """The pullback, with the arrays at hand where they belong."""
        given, own = jax.tree.leaves(at_hand), iter(self.own)
        leaves = [
            next(own) if source is None else given[source] for source in self.sources
        ]
        return jax.tree.unflatten(self.structure, leaves)


def leave_out(pullback: Callable, at_hand: Tree) -> Residuals:
    """The residuals of a pullback from `jax.vjp`, inside the program that makes it.

    Args:
        pullback: with the arrays that it needs as leaves.
        at_hand: inputs and outputs of the program, which the caller has anyway.
    """
    numbers = {id(leaf): number for number, leaf in enumerate(jax.tree.leaves(at_hand))}
    leaves, structure = jax.tree.flatten(pullback)
    sources = tuple(numbers.get(id(leaf)) for leaf in leaves)
    own = [leaf for leaf, source in zip(leaves, sources, strict=True) if source is None]
    return Residuals(own, sources, structure)
