"""Probes against autodiff; their place in the network."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from scipy import stats

from ftjax.analysis.rank_correlation import PROBES, RankCorrelation, rank_correlation
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import apply, init
from ftjax.backbones.heads import with_head
from ftjax.data.images import Arrays, Dataset
from ftjax.frozen.forward import infer
from ftjax.probes import gradient_norms, pooled_features, probe_curve
from ftjax.report.drawing import NARROW, save
from ftjax.report.probe_plots import probe_curves
from ftjax.stats.linear_probe import fit_ridge


@pytest.fixture(scope="module")
def tiny():
    """Stem, convolution, pooling and a residual block."""
    backbone = make_backbone("tiny")
    network = with_head(replace(backbone, body=backbone.body[:4]), 3)
    # As weights are loaded: units without parameters and the head are not there.
    params, batch_stats = init(network.units[:-1], 0, 16)
    return network, {name: own for name, own in params.items() if own}, batch_stats


@pytest.fixture(scope="module")
def dataset():
    """Three classes that differ in color."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = rng.integers(0, 3, count).astype(np.int32)
        images = rng.integers(0, 120, (count, 16, 16, 3)).astype(np.uint8)
        images[np.arange(count), :, :, labels] += 20
        return Arrays(images, labels)

    return Dataset("made", ("a", "b", "c"), draw(70), draw(41), None, "0", "", 0)


@pytest.fixture(scope="module")
def probes(tiny, dataset):
    return probe_curve(*tiny, dataset, batch_size=16, gradient_images=32)


@pytest.fixture(scope="module")
def made_probes():
    """Nine depths; not of any network."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "depth_layers": [0, 3, 18, 32, 42, 54, 55, 56, 59],
            "ridge_accuracy": np.sort(rng.uniform(0.4, 0.9, 9)),
            "logme": rng.normal(size=9),
            "gradient_norm": rng.uniform(0.01, 0.5, 9),
        }
    )


@pytest.mark.numeric
def test_pooled_features_are_those_of_the_whole_network(tiny, dataset):
    network, params, batch_stats = tiny
    body, images = network.units[:-1], dataset.val.images
    found = pooled_features(body, params, batch_stats, images, batch_size=16)
    assert len(found) == len(body) + 1
    for count in (0, 2, len(body)):
        x = jnp.asarray(images[:16], jnp.float32)
        x = infer(body[:count], params, batch_stats, x)
        x = x.mean(axis=(1, 2)) if x.ndim == 4 else x
        np.testing.assert_allclose(found[count][:16], x, rtol=1e-4, atol=1e-4)
    assert all(len(part) == len(images) for part in found)
    np.testing.assert_array_equal(found[-1], found[-2])
    other = pooled_features(body[:2], params, batch_stats, images, batch_size=7)
    np.testing.assert_allclose(other[2], found[2], rtol=1e-4, atol=1e-4)


@pytest.mark.numeric
def test_gradient_norms_are_those_of_the_whole_loss(dataset):
    backbone = make_backbone("tiny")
    network = with_head(replace(backbone, body=backbone.body[:2]), 3)
    params, batch_stats = init(network.units, 0, 16)
    images, labels = dataset.train.images[:32], dataset.train.labels[:32]

    @jax.jit
    def norms(params):
        def loss(params):
            logits = apply(network.units, params, batch_stats, jnp.asarray(images))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean()

        grads = jax.grad(loss)(params)
        return {
            name: optax.tree.norm(grads[name]) / optax.tree.norm(params[name])
            for name in params
            if params[name]
        }

    found = gradient_norms(
        network.units, params, batch_stats, images, labels, batch_size=16
    )
    expected = norms(params)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4)


def test_one_row_for_every_depth_in_units(tiny, dataset, probes):
    network, params, batch_stats = tiny
    assert list(probes.depth_units) == [0, 1, 1, 3, 4]
    assert list(probes.depth_layers) == [0, 12, 13, 14, 17]
    # Pooling has nothing to train: one unit more unfreezes nothing more.
    units = ["predictions", "res_block1", "res_block1", "plain_conv", "stem"]
    assert list(probes.unit) == units
    assert np.isfinite(probes[list(PROBES)]).all().all()
    assert probes.ridge_accuracy.between(0, 1).all()
    # Before the head stands what the whole backbone makes of the images.
    sides = [
        pooled_features(
            network.units[:-1], params, batch_stats, split.images, batch_size=16
        )[-1]
        for split in (dataset.train, dataset.val)
    ]
    ridge = fit_ridge(sides[0], dataset.train.labels, 3)
    right = (sides[1] @ ridge.kernel + ridge.bias).argmax(1) == dataset.val.labels
    assert probes.ridge_accuracy[0] == right.mean()
    # The classes are the color of the images: at full depth it is all there.
    assert probes.ridge_accuracy.iloc[-1] == 1


def test_a_batch_that_is_too_large(tiny, dataset):
    with pytest.raises(ValueError, match="batch_size 200 is larger.*70 images"):
        probe_curve(*tiny, dataset, batch_size=200)


def measured(probes, values):
    return pd.DataFrame(
        {
            "depth_layers": probes["depth_layers"],
            "bn": "frozen",
            "val_accuracy": values,
            "total_layers": 59,
            "status": "done",
        }
    )


def test_rank_correlation_is_spearmans(made_probes):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 0.9, len(made_probes))
    found = rank_correlation(made_probes, measured(made_probes, values))
    assert [one.probe for one in found] == list(PROBES)
    for one in found:
        rho = stats.spearmanr(made_probes[one.probe], values).statistic
        np.testing.assert_allclose(one.correlation, rho)
        test = stats.permutation_test(
            (made_probes[one.probe].to_numpy(),),
            lambda x: stats.spearmanr(x, values).statistic,
            permutation_type="pairings",
            n_resamples=500,
            rng=0,
        )
        assert abs(one.p_value - test.pvalue) < 0.12
    (first, *_) = rank_correlation(
        made_probes, measured(made_probes, made_probes.ridge_accuracy)
    )
    np.testing.assert_allclose(first.correlation, 1)
    assert first.p_value < 0.01
    assert first.num_depths == len(made_probes)


def test_constant_curves_have_no_rank_correlation(made_probes):
    found = rank_correlation(made_probes, measured(made_probes, 0.8))
    assert all(np.isnan(one.correlation) for one in found)
    assert rank_correlation(made_probes, measured(made_probes, 0.8).iloc[:2]) == ()


@pytest.mark.parametrize("width", [NARROW, 7.6])
def test_the_image(made_probes, width, tmp_path):
    results = measured(made_probes, np.linspace(0.5, 0.9, len(made_probes)))
    correlations = rank_correlation(made_probes, results)
    figure = probe_curves(made_probes, results, correlations, width=width)
    assert len(figure.axes) == 4
    for ax, name in zip(figure.axes[1:], PROBES, strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), made_probes[name])
        assert "rank correlation" in ax.get_title(loc="left")
    png, svg = save(figure, tmp_path / "probes")
    assert min(png.stat().st_size, svg.stat().st_size) > 5000


def test_the_title_says_what_was_measured(made_probes):
    results = measured(made_probes, 0.8)
    one = RankCorrelation("logme", "frozen", 0.97, 0.001, 9)
    title = probe_curves(made_probes, results, [one]).get_suptitle()
    assert "LogME" in title and "0.97" in title
    other = one._replace(bn="follow", correlation=-0.2, p_value=0.6)
    title = probe_curves(made_probes, results, [one, other]).get_suptitle()
    assert "not every policy" in title
    weak = one._replace(p_value=0.3)
    assert "No probe" in probe_curves(made_probes, results, [weak]).get_suptitle()
    none = probe_curves(made_probes, results.assign(status="failed"))
    assert none.get_suptitle() == "Probes before any training"
    with pytest.raises(ValueError, match="lack the columns logme"):
        probe_curves(made_probes.drop(columns="logme"), results)
