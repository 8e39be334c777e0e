"""The traps of loading pretrained weights, one test each."""

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import apply, init
from ftjax.backbones.preprocessing import CAFFE, EFFICIENTNET, check_range
from ftjax.weights.convert import leaf_shapes
from ftjax.weights.pretrained import convert_tensors

PIXEL = np.float32([255, 128, 10]).reshape(1, 1, 1, 3)
MEAN = np.float64([0.485, 0.456, 0.406])
STD = np.float64([0.229, 0.224, 0.225])


def run_block(name: str, unit_name: str, images: np.ndarray):
    """Output of one residual block with random weights."""
    units = make_backbone(name).units
    params, stats = init(units[:5], 0, 32)
    unit = next(unit for unit in units if unit.name == unit_name)
    return apply([unit], params, stats, jnp.asarray(images)), params[unit_name]


def torchvision_tensors(blocks, fill) -> dict[str, np.ndarray]:
    """Tensors of torchvision's ResNet, written down from its source, not our map.

    Args:
        blocks: per stage.
        fill: from a tensor's number to its constant value.
    """
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, width):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            sizes = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            for number, (out, into, size) in enumerate(sizes, start=1):
                shapes[f"{name}.conv{number}.weight"] = (out, into, size, size)
                norm(f"{name}.bn{number}", out)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    shapes |= {"fc.weight": (1000, inputs), "fc.bias": (1000,)}
    return {
        name: np.full(shape, fill(number), np.float32)
        for number, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.numeric
def test_imagenet_efficientnet_divides_by_the_root_of_std_once_more():
    normalized = (PIXEL / 255 - MEAN) / np.sqrt(STD)  # the file's variance is the std
    expected = normalized * (1 / np.sqrt(STD))
    found = EFFICIENTNET(jnp.asarray(PIXEL))
    # Five roundings of numbers up to 1 / std.
    np.testing.assert_allclose(found, expected, atol=5 * 2.0**-24 / STD.min())
    assert np.abs(expected - normalized).max() > 1
    layers = [layer.name for layer in make_backbone("effnetb0").layers]
    assert layers[:3] == ["rescaling", "normalization", "rescaling_1"]


def test_resnet_strides_on_the_first_convolution_with_biases():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 8, 8, 256)).astype(np.float32)
    shifted = images.copy()
    shifted[:, 1::2] += 1  # rows that a 1x1 convolution of stride 2 never sees
    before, params = run_block("resnet50", "conv3_block1", images)
    after, _ = run_block("resnet50", "conv3_block1", shifted)
    np.testing.assert_array_equal(before, after)
    assert all(
        "bias" in params[key] for key in ("0_conv", "1_conv", "2_conv", "3_conv")
    )


def test_resnet_epsilon_is_that_of_keras():
    for name, epsilon in (("resnet50", 1.001e-5), ("resnet50_torch", 1e-5)):
        unit = make_backbone(name).units[0]
        params, stats = init([unit], 0, 8)
        params["conv1"]["conv1_conv"] = {
            key: np.zeros_like(leaf)
            for key, leaf in params["conv1"]["conv1_conv"].items()
        }
        stats["conv1"]["conv1_bn"] = {
            "mean": np.full(64, -1, np.float32),
            "var": np.zeros(64, np.float32),
        }
        y = apply([unit], params, stats, jnp.zeros((1, 8, 8, 3)))
        np.testing.assert_allclose(y, 1 / np.sqrt(epsilon), rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "resnet152", "vgg16", "vgg19"])
def test_caffe_preprocessing_swaps_to_bgr_and_subtracts_means(name):
    module = make_backbone(name).units[0].module
    y = module.preprocessing(jnp.asarray(PIXEL))
    np.testing.assert_allclose(y.ravel(), [-93.939, 11.221, 131.32], rtol=1e-5)
    assert module.preprocessing == CAFFE


def test_efficientnet_takes_pixels_as_they_are():
    mean = jnp.asarray(255 * MEAN, jnp.float32).reshape(1, 1, 1, 3)
    y = make_backbone("effnetb0").units[0].module.preprocessing(mean)
    np.testing.assert_allclose(y, np.zeros((1, 1, 1, 3)), atol=1e-5)


def test_images_divided_by_255_are_noticed():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="look like images divided by 255; give 0..2"):
        check_range(images / 255)
    for good in (images, images.astype(np.float32), images // 255, images * 0.0):
        assert check_range(good) is good


@pytest.mark.parametrize(
    "images, message",
    [
        (np.full((1, 4, 4, 3), -1.0), "pixel values from -1 to -1; allowed is 0..255"),
        (np.full((1, 4, 4, 3), 256), "pixel values from 256 to 256"),
        (np.full((1, 4, 4, 3), np.nan), "pixel values from nan"),
        (np.zeros((1, 4, 4, 1)), r"shape \(1, 4, 4, 1\); allowed is"),
        (np.zeros((0, 4, 4, 3)), "shape"),
        (np.full((1, 4, 4, 3), "a"), "images of type <U1"),
    ],
)
def test_other_wrong_images(images, message):
    with pytest.raises(ValueError, match=message):
        check_range(images)


def test_torchvision_resnet_is_another_variant():
    tensors = torchvision_tensors((3, 4, 6, 3), float)
    numbers = {name: number for number, name in enumerate(tensors)}
    with pytest.raises(ValueError) as error:
        convert_tensors(make_backbone("resnet50"), tensors, size=32, source="r.pth")
    assert str(error.value) == (
        "r.pth (PyTorch) holds weights of resnet50_torch, not of resnet50: use --model "
        "resnet50_torch (strides, padding and preprocessing belong to the weights)"
    )
    network = make_backbone("resnet50_torch")
    params, stats = convert_tensors(network, tensors, size=32, source="r.pth")
    block = params["conv3_block1"]
    assert block["0_conv"]["kernel"].shape == (1, 1, 256, 512)
    assert block["0_conv"]["kernel"].max() == numbers["layer2.0.downsample.0.weight"]
    assert block["3_conv"]["kernel"].max() == numbers["layer2.0.conv3.weight"]
    assert params["conv5_block3"]["2_bn"]["bias"][0] == numbers["layer4.2.bn2.bias"]
    assert stats["conv1"]["conv1_bn"]["var"][0] == numbers["bn1.running_var"]


def test_torchvision_resnet_strides_on_the_second_convolution():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 8, 8, 256)).astype(np.float32)
    shifted = images.copy()
    shifted[:, 1::2] += 1
    before, params = run_block("resnet50_torch", "conv3_block1", images)
    after, _ = run_block("resnet50_torch", "conv3_block1", shifted)
    assert np.abs(before - after).max() > 0.1
    assert before.shape == (1, 4, 4, 512)
    assert not any("bias" in params[key] for key in ("0_conv", "2_conv"))


def test_keras_vgg_is_not_loaded_into_torchvisions():
    keras = make_backbone("vgg16")
    shapes = leaf_shapes(keras, 32)
    names = {unit.name: unit.layers[0].name for unit in keras.units}
    tensors = {
        f"{names[target.unit]}/{0 if target.leaf == 'kernel' else 1}": np.zeros(shape)
        for target, shape in shapes.items()
    }
    convert_tensors(keras, tensors, size=32, source="v.h5")
    network = make_backbone("vgg16_torch")
    with pytest.raises(ValueError, match="weights of vgg16, not of vgg16_torch: use"):
        convert_tensors(network, tensors, size=32, source="v.h5")
