"""The head that is fitted to the end, against scikit-learn's."""

import numpy as np
import pytest

from ftjax.training.head_probe import PENALTIES, fit_head, held_out


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150).astype(np.int32)
    centers = rng.normal(0, 1, (3, 12))
    return (centers[labels] + rng.normal(0, 1.5, (150, 12))).astype(np.float32), labels


def loss(features, labels, kernel, bias, penalty):
    """What is minimized, on standardized features."""
    center, spread = features.mean(0), features.std(0) + 1e-6
    kernel, bias = kernel * spread[:, None], bias + center @ kernel
    logits = (features - center) / spread @ kernel + bias
    logits = logits - logits.max(1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]
    each = np.log(np.exp(logits).sum(1)) - right
    return each.mean() + penalty / 2 * (kernel**2).sum()


def test_it_is_as_low_as_scikit_learns(made):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = made
    probe = fit_head(features, labels, 3)
    model = linear_model.LogisticRegression(
        C=1 / (probe.penalty * len(labels)), max_iter=5000, tol=1e-8
    )
    center, spread = features.mean(0), features.std(0) + 1e-6
    model.fit((features - center) / spread, labels)
    kernel = model.coef_.T / spread[:, None]
    theirs = kernel, model.intercept_ - center @ kernel
    ours = loss(features, labels, probe.kernel, probe.bias, probe.penalty)
    assert ours <= loss(features, labels, *theirs, probe.penalty) + 1e-4


def test_the_penalty_is_chosen_on_images_that_were_not_fitted(made):
    features, labels = made
    probe = fit_head(features, labels, 3)
    assert probe.penalty == PENALTIES[int(np.argmin(probe.held_out_loss))]
    held = held_out(labels)
    assert 0.15 < held.mean() <= 0.2
    assert set(labels[held]) == {0, 1, 2}
    noise = np.random.default_rng(1).normal(size=features.shape)
    assert fit_head(noise, labels, 3).penalty > PENALTIES[0]


def test_a_class_without_images_is_no_obstacle(made):
    features, labels = made
    probe = fit_head(features, labels, 5)
    assert probe.kernel.shape == (12, 5) and np.isfinite(probe.kernel).all()
