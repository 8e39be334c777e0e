"""The suffix of a cut: its units, and what of each is trained."""

from typing import NamedTuple

from ftjax.backbones.backbone import Backbone, Unit
from ftjax.batch_norm import find_policy
from ftjax.depth import Cut


class SuffixUnit(NamedTuple):
    """A unit at or above the cut, and what of it is trained; static.

    Attributes:
        unit: the unit.
        trainable: keys of its trainable layers.
        batch_norm: keys of the BatchNorms that use batch statistics in training.
        head: whether it belongs to the head, which has its own learning rate.
    """

    unit: Unit
    trainable: tuple[str, ...]
    batch_norm: tuple[str, ...]
    head: bool = False

    @property
    def frozen(self) -> bool:
        """Whether it has parameters and none is trained, as between trained blocks.

        It is in inference mode, passes the gradient on, and has no optimizer.
        """
        return bool(self.unit.parameter_keys) and not self.trainable


def make_suffix(
    network: Backbone,
    cut: Cut,
    policy: str,
    begin: str = "",
    *,
    last_only: bool = False,
) -> tuple[SuffixUnit, ...]:
    """The suffix of a cut under a BatchNorm policy.

    If the policy trains on batch statistics, a BatchNorm uses them if it is trainable,
    as `trainable` means in Keras (keras/src/layers/normalization). Else none does, as
    the Keras guide advises (`base_model(x, training=False)`).

    Args:
        network: backbone with head.
        cut: where the trainable part begins.
        policy: of BatchNorm.
        begin: as of `prefix.Activations`, whose images have passed the layers before.
        last_only: whether the classifier alone has the head's learning rate.

    Raises:
        ValueError: the policy is unknown.
    """
    batch_statistics = find_policy(policy).trains_on_batch_statistics
    suffix = []
    first, *others = network[cut.unit :]
    units = first.onward(begin), *others
    head_units = network.head[-1:] if last_only else network.head
    first_of_head = len(network.units) - len(head_units)
    for index, unit in enumerate(units):
        keys = cut.trainable[index]
        norms = unit.batch_norm_keys if batch_statistics else ()
        trained = tuple(key for key in norms if key in keys)
        head = cut.unit + index >= first_of_head
        suffix.append(SuffixUnit(unit, keys, trained, head))
    return tuple(suffix)
