"""Comparison of two forms of one function, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from rounding import rounding

BOUND = rounding(4096)  # products in the longest sum of these tests


def assert_same_with_gradients(first, second, *arguments, scale=BOUND):
    """Outputs and all gradients equal, relative to the largest entry of each."""

    def run(function):
        out, pull = jax.vjp(function, *arguments)
        leaves, tree = jax.tree.flatten(out)
        weights = [jnp.cos(jnp.arange(a.size, dtype=a.dtype)) for a in leaves]
        seeds = [w.reshape(a.shape) for w, a in zip(weights, leaves, strict=True)]
        return out, pull(jax.tree.unflatten(tree, seeds))

    left, right = jax.jit(lambda: (run(first), run(second)))()
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * float(abs(b).max()))


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def lowered(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text()
