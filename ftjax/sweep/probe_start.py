"""The head of a linear probe: what `--head-start probe` starts from."""

from ftjax.frozen.forward import advance
from ftjax.frozen.start import Start
from ftjax.machine.mesh import replicate
from ftjax.sweep.trial import Hyperparameters
from ftjax.training.batches import Source, Step
from ftjax.training.head_probe import fit_head


def with_probe(
    start: Start, step: Step, source: Source, hyper: Hyperparameters, num_classes: int
) -> Start:
    """The start with a head that is fitted to the end on the training images.

    It is fitted for the first trial that starts from it; `start.probes` keeps it for
    the others, whatever their cut.

    Args:
        start: the pretrained network, whose head ends with a linear classifier.
        step: of the trial.
        source: the activations that the trial trains on, and the labels.
        hyper: of the trial.
        num_classes: of the labels.
    """
    if hyper.probe not in start.probes:
        *before, last = [*step.recomputed, *(part.unit for part in step.suffix)]
        features = advance(
            before,
            start.params,
            start.batch_stats,
            source.train[: len(source.labels)],
            batch_size=hyper.micro_batch,
            mesh=step.mesh,
        )
        probe = fit_head(features, source.labels, num_classes, source.class_weights)
        head = {unit.name: {} for unit in start.network.head}
        head[last.name] = {
            last.parameter_keys[0]: {"kernel": probe.kernel, "bias": probe.bias}
        }
        start.probes[hyper.probe] = head
    return start._replace(head=replicate(start.probes[hyper.probe], step.mesh))
