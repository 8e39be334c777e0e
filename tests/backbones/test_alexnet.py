"""AlexNet: its layers, its normalization, its dropout, and PyTorch's numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounding import assert_close, rounding

from ftjax.backbones import make_backbone
from ftjax.backbones.alexnet import (
    CAFFE_NUMBERS,
    KSH_NUMBERS,
    FullyConnected,
    dense_layers,
)
from ftjax.backbones.backbone import (
    Backbone,
    Unit,
    apply,
    boundary_shapes,
    init,
    variable_shapes,
)
from ftjax.backbones.heads import with_head
from ftjax.backbones.layers import drop_out
from ftjax.backbones.pooling import adaptive_average_pool
from ftjax.depth import distinct_depths, make_cut
from ftjax.kernels.local_response import LocalResponse, local_response_norm
from ftjax.training.batches import epoch_scales
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

TOLERANCE = 1e-4


def count(units, size):
    leaves = jax.tree.leaves(variable_shapes(units, size))
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def test_layers_depths_and_parameters_are_matlabs():
    backbone = make_backbone("alexnet")
    names = "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 "
    names += "conv5 relu5 pool5 fc6 relu6 drop6 fc7 relu7 drop7"
    assert [layer.name for layer in backbone.layers] == names.split()
    assert distinct_depths(backbone) == (0, 3, 6, 9, 11, 13, 17, 21)
    assert count(backbone.units, 227) == 56_868_224
    assert count(with_head(backbone, 1000).units, 227) == 60_965_224
    assert boundary_shapes(backbone.units, 227)[5] == (6, 6, 256)


def test_torchvisions_has_one_column_and_the_same_fc6_for_every_size():
    backbone = make_backbone("alexnet_torch")
    assert distinct_depths(backbone) == (0, 2, 5, 10, 12, 14, 17, 20)
    for size in (63, 224):
        assert count(with_head(backbone, 1000).units, size) == 61_100_840


@pytest.mark.parametrize("name", ["alexnet", "alexnet_torch"])
def test_the_smallest_image_leaves_one_pixel(name):
    backbone = make_backbone(name)
    size = backbone.smallest_size
    before = boundary_shapes(backbone.units[:4], size)[4]
    assert before[:2] == (3, 3)  # what the last pooling takes
    assert boundary_shapes(backbone.units[:4], size - 1)[4][:2] == (2, 2)


def test_vectors_are_not_averaged():
    assert [unit.name for unit in with_head(make_backbone("alexnet"), 5).head] == [
        "predictions"
    ]


@pytest.mark.numeric
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_local_response_is_the_formula_with_its_gradient(beta):
    numbers = LocalResponse(size=5, alpha=2.0, beta=beta, k=1.5)

    def formula(x):
        near = jnp.array([[abs(i - j) <= 2 for j in range(7)] for i in range(7)], float)
        return x / (1.5 + 2 / 5 * (x * x) @ near) ** beta

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, slope = jnp.asarray(rng.normal(size=(2, 3, 7)))
        found, pullback = jax.vjp(partial(local_response_norm, numbers=numbers), x)
        expected, expected_pullback = jax.vjp(formula, x)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(
            pullback(slope)[0], expected_pullback(slope)[0], rtol=1e-10
        )


def test_the_papers_scaling_is_much_smaller():
    x = jnp.geomspace(0.1, 2000, 24, dtype=jnp.float32).reshape(4, 6)
    ratio = local_response_norm(x, CAFFE_NUMBERS) / local_response_norm(x, KSH_NUMBERS)
    assert 2**0.75 - 1e-3 < float(ratio.min()) < 1.7
    assert 3.3 < float(ratio.max()) <= 5**0.75


def test_adaptive_pooling_has_pytorchs_bins():
    x = np.arange(4.0, dtype=np.float32)
    x = x[None, :, None, None] + np.zeros((1, 4, 6, 1), np.float32)
    y = adaptive_average_pool(jnp.asarray(x), 6)  # bins 0:1 0:2 1:2 2:3 2:4 3:4
    np.testing.assert_allclose(y[0, :, 0, 0], [0, 0.5, 1, 2, 2.5, 3], rtol=1e-6)


def test_a_unit_drops_what_it_reads_and_nothing_in_inference():
    network = with_head(make_backbone("alexnet"), 5)
    dropping = [unit.name for unit in network.units if unit.dropout]
    assert dropping == ["fc7", "predictions"]
    module = FullyConnected(4, 0.5)
    x = jnp.ones((2, 50))
    own = jax.tree.map(jnp.ones_like, module.init(jax.random.key(0), x))
    np.testing.assert_array_equal(module.apply(own, x), jnp.full((2, 4), 51.0))
    numbers = jnp.array([0.2, 0.7], jnp.float32)
    dropped = module.apply(own, x, residual_scale=numbers)
    kept = drop_out(x, 0.5, numbers).sum(1, keepdims=True) + 1
    np.testing.assert_array_equal(dropped, jnp.broadcast_to(kept, (2, 4)))


def test_units_of_the_body_draw_the_same_at_every_depth():
    network = with_head(make_backbone("alexnet"), 5)
    common = {"drop_connect": 0.0, "steps": 2, "batch_size": 4}
    whole = epoch_scales(network, 0, [0], 1, **common)
    assert {name: drawn.shape for name, drawn in whole.items()} == {
        "fc7": (2, 4),
        "predictions": (2, 4),
    }
    assert (whole["fc7"] != whole["predictions"]).all()
    head = epoch_scales(network, 7, [0], 1, **common)
    np.testing.assert_equal(head, {"predictions": whole["predictions"]})
    np.testing.assert_equal(epoch_scales(network, 6, [0], 1, **common), whole)


@pytest.mark.numeric
def test_micro_batches_train_with_the_masks_of_the_batch():
    units = (Unit("fc6", FullyConnected(6, 0.5), dense_layers(6)),)
    backbone = Backbone("small", units, 4, 4, flat=True, head_dropout=0.5)
    network = with_head(backbone, 3)
    rng = np.random.default_rng(0)
    params = {
        "fc6": {"fc": {"kernel": rng.normal(size=(12, 6)), "bias": np.ones(6)}},
        "predictions": {
            "predictions": {"kernel": rng.normal(size=(6, 3)), "bias": np.zeros(3)}
        },
    }
    params = jax.tree.map(np.float32, params)
    suffix = make_suffix(network, make_cut(network, 2), "frozen")
    x = jnp.asarray(rng.normal(size=(8, 2, 2, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 8), jnp.int32)
    drawn = epoch_scales(network, 0, [0], 1, drop_connect=0, steps=1, batch_size=8)
    scales = {name: numbers[0] for name, numbers in drawn.items()}
    hyper = Hyper(jnp.float32(0.1), jnp.float32(1), jnp.float32(0))

    def train(scales, parts):
        state = init_state(
            suffix, params, {"fc6": {}, "predictions": {}}, optimizer="sgd"
        )
        batches = [
            Batch(x[at], labels[at], {name: own[at] for name, own in scales.items()})
            for at in np.split(np.arange(8), parts)
        ]
        state, _ = train_step(
            suffix, state, batches, hyper, optimizer="sgd", parts=parts
        )
        return state.params

    whole = train(scales, 1)
    assert_close(train(scales, 2), whole, rounding(8 * 12 + 6))
    plain = train({}, 1)
    moved = whole["fc6"]["fc"]["kernel"] - plain["fc6"]["fc"]["kernel"]
    assert float(abs(moved).max()) > 1e-3


def torch_network(torch, name):
    """The network by PyTorch's own layers, and those where our units end."""
    nn = torch.nn
    if name == "alexnet":
        widths, pad, norm = (96, 256, 384, 384, 256), 0, (5, 1e-4, 0.75, 1.0)
        groups, rates = (1, 2, 1, 2, 2), ()
    elif name == "alexnet_ksh":
        widths, pad, norm = (96, 256, 384, 384, 256), 0, (5, 5e-4, 0.75, 2.0)
        groups, rates = (1, 2, 1, 2, 2), ()
    else:
        widths, pad, norm = (64, 192, 384, 256, 256), 2, None
        groups, rates = (1, 1, 1, 1, 1), (0.5,)
    layers, ends, channels = [], [], 3
    kernels = ((11, 4, pad), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    for number, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        layers.append(nn.Conv2d(channels, width, *kernel, groups=groups[number]))
        layers.append(nn.ReLU())
        if norm and number < 2:
            layers.append(nn.LocalResponseNorm(*norm))
        if number in (0, 1, 4):
            layers.append(nn.MaxPool2d(3, 2))
        if number == 4 and not norm:
            layers.append(nn.AdaptiveAvgPool2d(6))
        ends.append(len(layers))
        channels = width
    layers.append(nn.Flatten())
    for _ in (6, 7):
        layers += [nn.Dropout(rate) for rate in rates]
        layers += [nn.LazyLinear(4096), nn.ReLU()]
        ends.append(len(layers))
    layers.append(nn.Linear(4096, 5))
    return nn.Sequential(*layers), (*ends, len(layers))


def to_torch(leaf, before):
    """A leaf in PyTorch's order; `before` is the map that fc6 reads, (h, w, c)."""
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)
    if leaf.ndim == 1:
        return leaf
    if len(before) == 3:
        return leaf.reshape(*before, -1).transpose(3, 2, 0, 1).reshape(leaf.shape[::-1])
    return leaf.T


@pytest.mark.parity
@pytest.mark.parametrize("name", ["alexnet", "alexnet_ksh", "alexnet_torch"])
def test_forward_and_five_steps_are_pytorchs(name):
    torch = pytest.importorskip("torch", reason="needs the extra benchmark")
    network = with_head(make_backbone(name), 5)
    size, rate = network.smallest_size, 1e-3
    params, stats = init(network.units, 0, size)
    rng = np.random.default_rng(0)
    params = jax.tree.map(  # biases too
        lambda x: x if x.ndim > 1 else rng.normal(0, 0.1, x.shape).astype(x.dtype),
        params,
    )
    shapes = boundary_shapes(network.units, size)
    model, ends = torch_network(torch, name)
    images = rng.integers(0, 256, (4, size, size, 3), np.uint8)
    labels = rng.integers(0, 5, 4).astype(np.int32)
    scaled = images.astype(np.float32)
    if name == "alexnet_torch":
        mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        scaled = ((scaled / 255 - mean) / std).astype(np.float32)
    else:
        scaled = (scaled[..., ::-1] - [104.007, 116.669, 122.679]).astype(np.float32)
    x = torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())
    model.eval()
    model(x)  # LazyLinear learns its width
    own = [m for m in model if len(list(m.parameters(recurse=False)))]
    keys = ("conv",) * 5 + ("fc",) * 2 + ("predictions",)
    with torch.no_grad():
        for layer, unit, key, before in zip(
            own, network.units, keys, shapes, strict=False
        ):
            for leaf, parameter in (("kernel", layer.weight), ("bias", layer.bias)):
                value = to_torch(params[unit.name][key][leaf], before)
                parameter.copy_(torch.from_numpy(value.copy()))

    def close(found, expected, what):
        difference = np.linalg.norm(np.ravel(found - expected))
        assert difference < TOLERANCE * np.linalg.norm(np.ravel(expected)), what

    y, expected = jnp.asarray(images), x
    begin = 0
    for unit, end in zip(network.units, ends, strict=True):
        y = apply([unit], params, stats, y)
        with torch.no_grad():
            expected = model[begin:end](expected)
        begin = end
        found = np.moveaxis(np.asarray(y), -1, 1) if y.ndim == 4 else np.asarray(y)
        close(found, expected.numpy(), unit.name)

    cut = make_cut(network, len(network.layers))
    suffix = make_suffix(network, cut, "frozen")
    state = init_state(suffix, params, stats, optimizer="sgd")
    hyper = Hyper(jnp.float32(rate), jnp.float32(1), jnp.float32(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    answers = torch.from_numpy(labels.astype(np.int64))
    for _ in range(5):
        state, _ = train_step(
            suffix,
            state,
            [Batch(jnp.asarray(images), jnp.asarray(labels))],
            hyper,
            optimizer="sgd",
        )
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), answers).backward()
        optimizer.step()
    for layer, unit, key, before in zip(own, network.units, keys, shapes, strict=False):
        for leaf, parameter in (("kernel", layer.weight), ("bias", layer.bias)):
            start = to_torch(params[unit.name][key][leaf], before)
            found = to_torch(np.asarray(state.params[unit.name][key][leaf]), before)
            expected = parameter.detach().numpy()
            close(found, expected, (unit.name, leaf))
            # What five steps changed agrees too, as far as float32 holds it.
            changed = np.linalg.norm(np.ravel(expected - start))
            lost = 5 * np.finfo(np.float32).eps * np.linalg.norm(np.ravel(start))
            moved = np.linalg.norm(np.ravel(found - expected))
            assert moved < 100 * TOLERANCE * changed + lost, (unit.name, leaf)
