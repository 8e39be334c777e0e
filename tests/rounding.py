"""Bounds on rounding, for tests that compare two orders of the same arithmetic."""

import jax
import numpy as np

TINY_LAYERS = 59  # of the network `tiny`


def rounding(count, dtype="float32"):
    """How far two results of `count` additions lie apart, over the largest entry.

    An addition rounds by at most u, half of the spacing of numbers at 1, times the
    running sum. The roundings are as good as independent, so they add up to sqrt(count)
    u; six times that is exceeded in one of 10^8 cases (Higham and Mary 2019, A New
    Approach to Probabilistic Rounding Error Analysis, theorem 2.4).

    Args:
        count: of the longest sum; of layers one after the other, all of them together.
        dtype: of the running sums.
    """
    return 6 * np.sqrt(count) * np.finfo(dtype).eps / 2


def adam_drift(steps, rate, gradient_error):
    """How far parameters lie apart after steps of Adam on gradients with that error.

    Adam divides a gradient by its own size plus 1e-7 (Keras' epsilon): where it is near
    zero, rounding makes a step of any length up to the rate, in either direction.
    """
    return steps * rate * min(2, gradient_error / 1e-7)


def assert_close(found, expected, bound):
    """All leaves equal, relative to the largest entry of each."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        scale = float(np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * scale)
