"""`--head-start probe`: the head of every depth starts from a linear probe."""

from collections.abc import Iterable

import jax

from ftjax.data import Dataset
from ftjax.frozen.forward import advance
from ftjax.frozen.start import Start
from ftjax.machine.mesh import replicate
from ftjax.sweep.resources import Budget
from ftjax.training.head_probe import HeadProbe, fit_head


def with_probes(
    start: Start,
    data: Dataset,
    budget: Budget,
    batch_size: int,
    train_sizes: Iterable[int | None] = (None,),
) -> tuple[Start, dict[int | None, HeadProbe]]:
    """The start with heads that are fitted on the training images.

    Args:
        start: the pretrained network, whose head is a pooling and a linear classifier.
        data: images and labels.
        budget: of the machine.
        batch_size: images that pass through the network at a time.
        train_sizes: numbers of the first images that a head each is fitted on; None:
            all.

    Returns:
        The start, and the probes by number of images.
    """
    *before, last = start.network.units
    features = advance(
        before,
        start.params,
        start.batch_stats,
        data.train.images,
        batch_size=batch_size,
        mesh=budget.mesh,
    )
    probes, heads = {}, {}
    for size in train_sizes:
        labels = data.train.labels[:size]
        probe = fit_head(features[:size], labels, len(data.class_names))
        layer = {"kernel": probe.kernel, "bias": probe.bias}
        head = {unit.name: {} for unit in start.network.head}
        head[last.name] = {last.parameter_keys[0]: layer}
        probes[size] = probe
        heads[size] = replicate(jax.device_put(head), budget.mesh)
    return start._replace(probes=heads), probes
