"""`--head-start probe`: the head of every depth starts from a linear probe."""

import jax

from ftjax.data import Dataset
from ftjax.frozen.forward import advance
from ftjax.frozen.start import Start
from ftjax.machine.mesh import replicate
from ftjax.sweep.resources import Budget
from ftjax.training.head_probe import HeadProbe, fit_head


def with_probe(
    start: Start, data: Dataset, budget: Budget, batch_size: int
) -> tuple[Start, HeadProbe]:
    """The start with a head that is fitted on the training images.

    Args:
        start: the pretrained network, whose head is a pooling and a linear classifier.
        data: images and labels.
        budget: of the machine.
        batch_size: images that pass through the network at a time.
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
    probe = fit_head(features, data.train.labels, len(data.class_names))
    layer = {"kernel": probe.kernel, "bias": probe.bias}
    head = {unit.name: {} for unit in start.network.head}
    head[last.name] = {last.parameter_keys[0]: layer}
    return start._replace(head=replicate(jax.device_put(head), budget.mesh)), probe
