"""Proof of freeze: every frozen leaf is bit for bit what it was at the start.

Frameworks fail here silently: a BatchNorm whose statistics go on moving, a decay that
shrinks what has no gradient, a mask that misses a bias.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from ftjax.trees import Tree

Digests = dict[tuple[str, str, str, str], bytes]


def digests(params: Tree, batch_stats: Tree) -> Digests:
    """A digest of the bytes of every leaf, by (collection, unit, layer, leaf)."""
    found = {}
    for collection, tree in (("params", params), ("batch_stats", batch_stats)):
        for unit, layers in tree.items():
            for layer, leaves in layers.items():
                for leaf, value in leaves.items():
                    data = np.ascontiguousarray(value)
                    digest = hashlib.blake2b(data.data, digest_size=16).digest()
                    found[collection, unit, layer, leaf] = digest
    return found


def changed_leaves(
    start: Digests,
    params: Tree,
    batch_stats: Tree,
    *,
    trainable: Mapping[str, Iterable[str]],
    batch_norm: Mapping[str, Iterable[str]],
) -> tuple[str, ...]:
    """Frozen leaves that are not what they were.

    Args:
        start: digests of the pretrained leaves.
        params: after training, of the whole network.
        batch_stats: after training, of the whole network.
        trainable: by unit, the layers whose parameters may change.
        batch_norm: by unit, the BatchNorms whose statistics may change.

    Returns:
        Their names; empty if the freeze held.
    """
    allowed = {"params": trainable, "batch_stats": batch_norm}
    end = digests(params, batch_stats)
    return tuple(
        "/".join(name)
        for name, digest in start.items()
        if name[2] not in allowed[name[0]].get(name[1], ()) and end.get(name) != digest
    )
