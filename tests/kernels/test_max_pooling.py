"""Max pooling equals plain lax, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same_gradients import assert_same_with_gradients, normal

from ftjax.backbones import pooling

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [(2, 2, "VALID"), (3, 2, "SAME"), (3, 2, ((1, 1), (1, 1)))],
)
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_max_pool_equals_lax(size, window, strides, padding):
    def form(lowering):
        return lambda x: pooling.max_pool(
            x, window, strides, padding, lowering=lowering
        )

    # Rounded after relu: many equal maxima, so that the choice among them is tested.
    x = jnp.round(jax.nn.relu(normal(0, (2, *size, 3))))
    assert_same_with_gradients(form("cpu"), form("lax"), x)


def test_max_pool_spreads_nan():
    x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0, 0].set(jnp.nan).at[0, 1, 1, 2].set(jnp.nan)
    pooled = pooling.max_pool(x, 2, 2, lowering="cpu")
    np.testing.assert_array_equal(pooled[0, 0, 0], [np.nan, 0, np.nan])
