"""Units, layer tables, and slices of a network."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounding import rounding

from ftjax.backbones import BACKBONES, make_backbone
from ftjax.backbones.backbone import apply, boundary_shapes, init, variable_shapes
from ftjax.backbones.heads import with_head
from ftjax.weights.pretrained import load_pretrained

KERAS = json.loads((Path(__file__).parents[1] / "keras_layers.json").read_text())


def test_backbones_import_nothing_of_the_floors_above():
    program = (
        "import sys, ftjax.backbones.layers; above = {'pandas', 'optax', 'orbax', "
        "'ftjax.sweep.records', 'ftjax.machine.xla'} & set(sys.modules); "
        "sys.exit(str(above) if above else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", KERAS)
def test_layer_table_is_keras_model_layers(name):
    layers = make_backbone(name).layers
    expected = [line.split() for line in KERAS[name]]
    assert [layer.name for layer in layers] == [line[0] for line in expected]
    assert [layer.kind for layer in layers] == [line[1] for line in expected]
    trainable = [int(line[2]) > 0 for line in expected]
    assert [bool(layer.key) for layer in layers] == trainable


@pytest.mark.parametrize("name", KERAS)
def test_layer_table_holds_as_many_parameters_as_keras(name):
    backbone = make_backbone(name)
    params, _ = init(backbone.units, 0, 32)
    counts = {
        (unit.name, key): sum(leaf.size for leaf in leaves.values())
        for unit in backbone.units
        for key, leaves in params[unit.name].items()
    }
    expected = {
        line.split()[0]: int(line.split()[2])
        for line in KERAS[name]
        if line.split()[2] != "0"
    }
    found = {
        layer.name: counts[unit.name, layer.key]
        for unit in backbone.units
        for layer in unit.layers
        if layer.key
    }
    assert found == expected


def test_lite0_is_the_same_scheme_without_squeeze_and_padding():
    left_out = ("_se_", "_pad", "rescaling", "normalization")
    expected = [
        line.split()[0]
        for line in KERAS["effnetb0"]
        if not any(part in line.split()[0] for part in left_out)
    ]
    assert [layer.name for layer in make_backbone("effnetlite0").layers] == expected
    assert len(expected) == 149


@pytest.fixture(scope="module")
def tiny():
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 32)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: x + rng.uniform(0, 0.5, x.shape), stats)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    return network, params, jax.tree.map(np.float32, stats), images


def test_prefix_then_suffix_is_the_whole_at_every_cut(tiny):
    network, params, stats, images = tiny
    whole = apply(network[:], params, stats, jnp.asarray(images))
    for cut in range(len(network.units) + 1):
        below = {unit.name: params[unit.name] for unit in network[:cut]}
        above = {unit.name: params[unit.name] for unit in network[cut:]}
        middle = apply(network[:cut], below, stats, jnp.asarray(images))
        np.testing.assert_array_equal(apply(network[cut:], above, stats, middle), whole)


def test_boundary_shapes_are_those_of_the_activations(tiny):
    network, params, stats, images = tiny
    shapes = boundary_shapes(network.units, 32)
    x = jnp.asarray(images)
    for unit, shape in zip(network.units, shapes, strict=False):
        assert x.shape[1:] == shape
        x = apply([unit], params, stats, x)
    assert x.shape[1:] == shapes[-1] == (3,)


def test_variables_are_float32_whatever_jax_may_make_of_them():
    with jax.enable_x64(True):
        trees = variable_shapes(make_backbone("tiny").units, 40)  # of no other test
    assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {np.dtype("float32")}


def test_units_of_equal_shape_share_their_module():
    modules = {unit.module for unit in make_backbone("resnet152").units}
    assert len(modules) == 9


def test_every_name_makes_the_backbone_of_that_name():
    for name in BACKBONES:
        assert make_backbone(name).name == name


def test_unknown_model():
    with pytest.raises(ValueError, match="unknown model 'resnet9'.*effnetlite0"):
        make_backbone("resnet9")


@pytest.mark.parametrize(
    ("name", "million", "size", "widths", "odd"),
    [
        ("effnetlite1", 5.42, 240, (16, 24, 40, 80, 112, 192, 320), "6a"),
        ("effnetlite2", 6.09, 260, (16, 24, 48, 88, 120, 208, 352), "3a 4a 6a"),
    ],
)
def test_other_lites_are_scaled_but_for_their_ends(name, million, size, widths, odd):
    network = with_head(make_backbone(name), 1000)
    blocks = [unit.name[-2:] for unit in network.body[1:-1]]
    repeats = (1, 3, 3, 4, 4, 5, 1)
    letters = [f"{i}{c}" for i, n in enumerate(repeats, 1) for c in "abcde"[:n]]
    assert blocks == letters and network.native_size == size
    found = [unit.module.features for unit in network.body]
    middle = [width for width, n in zip(widths, repeats, strict=True) for _ in range(n)]
    assert found == [32, *middle, 1280]
    # halved from 15 rows; from 65, 33 and 17
    centered = [unit.name[-2:] for unit in network.body[1:-1] if unit.module.centered]
    assert " ".join(centered) == odd
    params, _ = jax.eval_shape(lambda: init(network.units, 0, 32))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6, 2) == million  # as timm's table has it


@pytest.mark.numeric
@pytest.mark.parametrize(
    "name",
    [  # one code builds and reads all three
        "lite0",
        pytest.param("lite1", marks=pytest.mark.slow),
        pytest.param("lite2", marks=pytest.mark.slow),
    ],
)
def test_lite_logits_are_the_original_networks(shared, name):
    folder = shared / "reference"
    reference = np.load(folder / "lite0_reference.npz")
    logits = reference["logits"]
    if name != "lite0":
        logits = np.load(folder / "lite12_reference.npz")[f"{name}_logits_at_224"]
    network = with_head(make_backbone(f"effnet{name}"), 1000)
    weights = load_pretrained(network, "imagenet", size=224)
    images = jnp.asarray(reference["images_uint8_nhwc"][:2])
    found = apply(network[:], weights.params, weights.batch_stats, images)
    np.testing.assert_allclose(found, logits[:2], atol=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize(
    "name",
    [
        "tiny",  # has each kind of block that is divided; the others only more of them
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("effnetb1", "effnetlite0", "resnet50")
        ),
    ],
)
def test_a_divided_unit_is_the_whole(name):
    rng = np.random.default_rng(0)
    units = make_backbone(name).units
    shapes = boundary_shapes(units, 32)
    params, stats = init(units, 0, 32)
    bound = rounding(8 * 9 * 512)  # up to eight layers of products over 9 x 512 inputs
    begun, seen = set(), set()
    for unit, shape, after in zip(units[1:], shapes[1:], shapes[2:], strict=False):
        kind = (*map(unit.step_of, unit.parameter_keys), shape == after)
        if kind in seen:
            continue
        seen.add(kind)
        x = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
        own = {"params": params[unit.name], "batch_stats": stats[unit.name]}
        expected = unit.module.apply(own, x)
        scale = float(abs(expected).max())
        for position, key in enumerate(unit.parameter_keys):
            step = unit.step_of(key)
            if not step:
                assert unit.onward(step) is unit
                continue
            first, second = unit.before(step), unit.onward(step)
            assert 0 < unit.parameter_keys.index(step) <= position
            begun.add(step)
            y = second.module.apply(own, first.module.apply(own, x))
            np.testing.assert_allclose(y, expected, rtol=0, atol=bound * scale)
            # The second half reads nothing of the layers before its first step.
            kept = unit.parameter_keys[unit.parameter_keys.index(step) :]
            part = {"params": {key: params[unit.name][key] for key in kept}}
            part["batch_stats"] = own["batch_stats"]
            second.module.apply(part, first.module.apply(own, x))
    every = {"dwconv", "se_reduce", "project_conv", "2_conv", "3_conv"}
    of_resnet = {step for step in every if step[0].isdigit()}
    expected = {"tiny": every, "resnet50": of_resnet, "effnetb1": every - of_resnet}
    assert begun == expected.get(name, {"dwconv", "project_conv"})


def test_only_blocks_without_a_projection_are_divided():
    units = {unit.name: unit for unit in make_backbone("resnet50").units}
    assert units["conv3_block1"].step_of("3_conv") == ""
    assert units["conv3_block2"].step_of("3_bn") == "3_conv"
    assert units["conv3_block2"].step_of("1_bn") == ""  # of the first step
    assert units["conv1"].step_of("conv1_bn") == ""
