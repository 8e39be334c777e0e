"""What every trial starts from: the pretrained network, and a fresh head by seed."""

from typing import NamedTuple

from jax.sharding import Mesh

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import draw_head
from ftjax.frozen.proof import Digests, digests
from ftjax.machine.mesh import replicate
from ftjax.trees import Tree


class Start(NamedTuple):
    """The pretrained network.

    Attributes:
        network: backbone with head.
        image_size: height and width of its images, in pixels.
        params: pretrained parameters, by unit, on the devices; without the head.
        batch_stats: likewise.
        weights: where they are from.
        digests: of them.
        head: that a trial starts from, by unit, on the devices; None: it draws its
            own by its seed.
        deviation: of the kernels that are drawn, as of `draw_head`.
        probes: heads that were fitted so far, by what they depend on, on the host.
    """

    network: Backbone
    image_size: int
    params: Tree
    batch_stats: Tree
    weights: str
    digests: Digests
    head: Tree | None = None
    deviation: float = 0.0
    probes: dict[tuple, Tree] = {}


def make_start(
    network: Backbone,
    image_size: int,
    params: Tree,
    batch_stats: Tree,
    *,
    weights: str,
    mesh: Mesh | None = None,
) -> Start:
    """Places pretrained parameters on the devices, and takes their digests.

    Args:
        network: backbone with head.
        image_size: in pixels.
        params: by unit, on the host; without the head.
        batch_stats: likewise.
        weights: where they are from.
        mesh: devices.
    """
    return Start(
        network,
        image_size,
        replicate(params, mesh),
        replicate(batch_stats, mesh),
        weights,
        digests(params, batch_stats),
        probes={},
    )


def with_fresh_head(
    start: Start, seed: int, mesh: Mesh | None = None
) -> tuple[Tree, Tree]:
    """Parameters and statistics with the head that a seed starts from, at every depth.

    Args:
        start: the pretrained network.
        seed: of the draws.
        mesh: devices.
    """
    network = start.network
    params = {unit.name: start.params.get(unit.name, {}) for unit in network.body}
    stats = {unit.name: start.batch_stats.get(unit.name, {}) for unit in network.body}
    if start.head is not None:
        return {**params, **start.head}, {**stats, **{name: {} for name in start.head}}
    head = draw_head(network, seed, start.image_size, start.deviation)
    head_params, head_stats = replicate(head, mesh)
    return {**params, **head_params}, {**stats, **head_stats}
