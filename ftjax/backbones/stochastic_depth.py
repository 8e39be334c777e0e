"""Drop-connect: in training, a block of EfficientNet is skipped at random."""

from functools import partial

import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import UNIT_NAMES


def drop_rates(network: Backbone, largest: float) -> tuple[float, ...]:
    """Drop-connect rates of the body's units, and of those of a linear head.

    They are as many for every head, so that the body draws the same under all of them.
    """
    body = tuple(unit.drop_share * largest for unit in network.body)
    return body + (0.0,) * len(UNIT_NAMES)


@partial(jax.jit, static_argnums=(2, 3, 4))
def residual_scales(
    key: jax.Array, epoch, rates: tuple[float, ...], steps: int, batch_size: int
) -> jax.Array:
    """Drop-connect (Huang et al. 2016): 0, or 1 / (1 - rate), by unit and image.

    Rates belong to the units of the whole network, so a unit draws the same numbers
    at every depth. Keras drops in frozen blocks as well; here only blocks with
    something trainable do, since the frozen part is passed once.

    Returns:
        (steps, units, batch) of one epoch.
    """
    keep = 1 - jnp.asarray(rates, jnp.float32).reshape(1, -1, 1)
    shape = (steps, len(rates), batch_size)
    draws = jax.random.uniform(jax.random.fold_in(key, epoch), shape)
    return jnp.where(draws < keep, 1 / keep, 0.0)
