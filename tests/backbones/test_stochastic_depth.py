"""Drop-connect."""

import jax
import numpy as np

from ftjax.backbones.stochastic_depth import residual_scales


def test_drop_connect_draws_the_same_numbers_at_every_depth():
    rates = (0.0, 0.25, 0.5)
    scales = residual_scales(jax.random.key(0), 3, rates, 2, 2000)
    assert scales.shape == (2, 3, 2000)
    scales = np.swapaxes(scales, 0, 1).reshape(3, -1)
    assert (scales[0] == 1).all()
    np.testing.assert_allclose(np.unique(scales[1]), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(scales.mean(1), 1, atol=0.06)
