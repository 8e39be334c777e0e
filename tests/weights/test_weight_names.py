"""Every layout of weight files into the right network, or one clear line."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ftjax.backbones import BACKBONES, make_backbone
from ftjax.backbones.heads import with_head
from ftjax.weights import keras_names, own_names, torch_names
from ftjax.weights.convert import Origin, Target, convert, leaf_shapes
from ftjax.weights.pretrained import TORCH, convert_tensors, load_pretrained

MEAN = np.float32([0.485, 0.456, 0.406])
STD = np.float32([0.229, 0.224, 0.225])


def legacy_tensors(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors as a legacy Keras file has them, from our layer table."""
    rng = np.random.default_rng(seed)
    network = make_backbone(name)
    shapes = leaf_shapes(network, 32)
    tensors = {}
    for target, origin in keras_names.origins(network, shapes).items():
        shape = tuple(np.array(shapes[target])[list(origin.axes)])
        tensors[origin.name] = rng.normal(size=shape).astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def tiny():
    return legacy_tensors("tiny")


def test_depthwise_kernels_change_their_axes(tiny):
    params, _ = convert_tensors(make_backbone("tiny"), tiny, size=32, source="t.h5")
    kernel = tiny["mb_block1_dwconv/0"]
    assert kernel.shape == (3, 3, 32, 1)
    np.testing.assert_array_equal(
        params["mb_block1"]["dwconv"]["kernel"], kernel.transpose(0, 1, 3, 2)
    )


def test_a_missing_and_an_unknown_tensor_are_both_named(tiny):
    tensors = {name: value for name, value in tiny.items() if name != "top_bn/2"}
    tensors["stem_conv/1"] = np.zeros(8)
    with pytest.raises(ValueError) as error:
        convert_tensors(make_backbone("tiny"), tensors, size=32, source="t.h5")
    assert str(error.value) == (
        "t.h5 does not fit: 2 problems: missing top_bn/2; unused stem_conv/1"
    )


def test_a_missing_layer_is_named(tiny):
    tensors = {name: value for name, value in tiny.items() if "top_bn" not in name}
    with pytest.raises(ValueError, match="4 problems: missing top_bn/.; missing top_"):
        convert_tensors(make_backbone("tiny"), tensors, size=32, source="t.h5")


def test_a_wrong_shape_is_named(tiny):
    tensors = {**tiny, "top_conv/0": np.zeros((1, 1, 8, 17))}
    with pytest.raises(ValueError, match=r"top_conv/0 has shape \(1, 1, 8, 17\), not"):
        convert_tensors(make_backbone("tiny"), tensors, size=32, source="t.h5")


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e30])
def test_values_that_no_network_has_are_named(tiny, value):
    kernel = tiny["top_conv/0"].copy()
    kernel[0, 0, 3, 4] = value
    message = f"top_conv/0 holds {value:g}, which no network has"
    with pytest.raises(ValueError, match=re.escape(message)):
        convert_tensors(
            make_backbone("tiny"), {**tiny, "top_conv/0": kernel}, size=32, source="t"
        )


def test_layers_of_equal_shape_go_by_name_not_by_order(tiny):
    """Files of Keras 2.2 list a block's last convolution before its shortcut."""
    backwards = dict(reversed(tiny.items()))
    network = make_backbone("tiny")
    params, stats = convert_tensors(network, tiny, size=32, source="t.h5")
    others = convert_tensors(network, backwards, size=32, source="t.h5")
    np.testing.assert_equal((params, stats), others)


def test_a_file_of_another_network():
    tensors = legacy_tensors("effnetb1")
    tensors |= {"normalization/0": MEAN, "normalization/1": STD, "normalization/2": STD}
    message = (
        r"^b1.h5 \(Keras .h5\) holds weights of effnetb1, not of .*: use --model e"
    )
    for name in ("effnetb2", "resnet50_torch"):
        with pytest.raises(ValueError, match=message):
            convert_tensors(make_backbone(name), tensors, size=32, source="b1.h5")


def test_a_file_of_no_known_network():
    tensors = {"layer1.0.conv1.weight": np.zeros((64, 64, 3, 3))}
    with pytest.raises(ValueError, match="r18.pth .PyTorch; .* is of no network that"):
        convert_tensors(make_backbone("resnet50"), tensors, size=32, source="r18.pth")
    with pytest.raises(ValueError, match="x.h5 calls its tensors a, b, ...; allowed"):
        convert_tensors(make_backbone("tiny"), {"a": 0, "b": 1}, size=32, source="x.h5")


@pytest.mark.parametrize("variance", [STD, STD**2])
def test_normalization_of_imagenet_is_accepted(variance):
    tensors = {"normalization_3/0": MEAN, "normalization_3/1": variance}
    keras_names.check_normalization(tensors, "b0.h5")


def test_normalization_of_other_images_is_refused():
    tensors = {"normalization/0": np.zeros(3), "normalization/1": np.ones(3)}
    with pytest.raises(
        ValueError, match=r"mean \[0, 0, 0\] and variance \[1, 1, 1\]; a"
    ):
        keras_names.check_normalization(tensors, "b0.h5")


def test_a_classifier_is_read_where_it_is_wanted_and_left_out_elsewhere(tiny):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(16, 7)), rng.normal(size=7)
    for name in ("predictions", "probs"):
        tensors = {**tiny, f"{name}/0": kernel, f"{name}/1": bias}
        network = with_head(make_backbone("tiny"), 7)
        params, _ = convert_tensors(network, tensors, size=32, source="t.h5")
        head = params["predictions"]["predictions"]
        np.testing.assert_array_equal(head["kernel"], kernel.astype(np.float32))
        params, _ = convert_tensors(make_backbone("tiny"), tensors, size=32, source="t")
        assert "predictions" not in params
    with pytest.raises(ValueError, match="2 problems: missing predictions/"):
        convert_tensors(network, tiny, size=32, source="t.h5")


def test_vgg_classifier_of_pytorch_flattens_channels_first():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 512 * 2 * 2)).astype(np.float32)
    maps = rng.normal(size=(1, 2, 2, 512)).astype(np.float32)
    target = Target("fc1", "fc1", "kernel")
    shape = (512 * 2 * 2, 5)
    for stored in (weight, weight.reshape(5, 512, 2, 2)):  # torchvision, timm
        origin = Origin("fc", (2, 3, 1, 0), (5, 512, 2, 2))
        params, _ = convert(
            {"fc": stored}, {target: origin}, {target: shape}, source="v"
        )
        ours = maps.reshape(1, -1) @ params["fc1"]["fc1"]["kernel"]
        theirs = maps.transpose(0, 3, 1, 2).reshape(1, -1) @ weight.T
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "head", [("classifier.0", "classifier.3", "classifier.6"), ("pre", "", "")]
)
def test_vgg_of_torchvision_and_timm(head):
    """Layer numbers as in torchvision's `features`, written down from its source."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (3, 64, 64, 128, 128, *(256,) * 3, *(512,) * 6)
    fill = np.float32(0)
    tensors = {}
    for place, number in enumerate(numbers):
        shape = (widths[place + 1], widths[place], 3, 3)
        tensors[f"features.{number}.weight"] = np.broadcast_to(fill + place, shape)
        tensors[f"features.{number}.bias"] = np.full(shape[0], place, np.float32)
    timm = head[0] == "pre"
    if timm:
        head = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    dense = [(4096, 25088), (4096, 4096), (1000, 4096)]
    if timm:
        dense[:2] = [(4096, 512, 7, 7), (4096, 4096, 1, 1)]
    for name, shape in zip(head, dense, strict=True):
        tensors[f"{name}.weight"] = np.broadcast_to(fill, shape)
        tensors[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    network = make_backbone("vgg16_torch")
    params, _ = convert_tensors(network, tensors, size=32, source="vgg16.pth")
    convs = [unit for unit in network.units if unit.parameter_keys]
    for place, unit in enumerate(convs):
        assert params[unit.name]["conv"]["kernel"].max() == place


def torch_tensors(name, seed=0):
    """Random tensors as a state dict has them."""
    rng, network = np.random.default_rng(seed), make_backbone(name)
    named, tensors = torch_names.modules(network), {}
    for target, shape in leaf_shapes(network, 32).items():
        origin = torch_names.torch_origin("", target, {target: shape})
        shape = tuple(np.array(shape)[list(np.argsort(origin.axes))])
        tensors[torch_names.tensor_name(named, *target)] = rng.normal(size=shape)
    return tensors


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module.", "a.b."])
def test_a_wrapped_network_of_pytorch_is_read(prefix):
    network = make_backbone("vgg16_torch")
    plain = torch_tensors("vgg16_torch")
    wrapped = {f"{prefix}{name}": tensor for name, tensor in plain.items()}
    beside = {"criterion.weight": np.ones(3), f"{prefix}fc.weight": np.ones((3, 512))}
    expected = convert_tensors(network, plain, size=32, source="a.pth")
    found = convert_tensors(network, wrapped | beside, size=32, source="a.pth")
    np.testing.assert_equal(found, expected)
    with pytest.raises(ValueError, match="holds weights of vgg16_torch, not of vgg19"):
        convert_tensors(make_backbone("vgg19_torch"), wrapped, size=32, source="a.pth")


def test_a_network_that_is_wrapped_twice_is_one_line():
    plain = torch_tensors("vgg16_torch")
    both = {f"{p}.{name}": t for p in ("teacher", "net") for name, t in plain.items()}
    with pytest.raises(ValueError) as error:
        convert_tensors(make_backbone("vgg16_torch"), both, size=32, source="a.pth")
    assert str(error.value) == (
        "a.pth holds vgg16_torch 2 times, as net.* and teacher.*: save one alone, e.g. "
        "torch.save(model.teacher.state_dict(), NEW_FILE)"
    )


def test_an_unknown_network_of_pytorch_is_an_error():
    """It was taken for a ResNet, and its tensors for those of `layer<i>`."""
    for network in (make_backbone(name) for name in BACKBONES):
        if network.source in TORCH.sources:
            assert len(torch_names.modules(network)) >= 7
    stranger = replace(make_backbone("vgg16_torch"), name="densenet")
    tensors = {"features.0.weight": np.zeros((64, 3, 3, 3))}
    line = "PyTorch's names of the modules of densenet are not known, only those of"
    with pytest.raises(ValueError, match=line):
        convert_tensors(stranger, tensors, size=32, source="densenet.pth")


def test_own_names_round_trip_and_hold_the_model(tiny):
    params, stats = convert_tensors(make_backbone("tiny"), tiny, size=32, source="t.h5")
    tensors = own_names.flatten("tiny", params, stats)
    again = convert_tensors(make_backbone("tiny"), tensors, size=32, source="t")
    np.testing.assert_equal((params, stats), again)
    assert all(value.flags.c_contiguous for value in tensors.values())
    with pytest.raises(ValueError, match="holds weights of tiny, not of vgg16: use"):
        convert_tensors(make_backbone("vgg16"), tensors, size=32, source="t")


def test_there_are_no_imagenet_weights_of_tiny():
    with pytest.raises(
        ValueError, match="tiny has no ImageNet weights; add --weights r"
    ):
        load_pretrained(make_backbone("tiny"), "imagenet", size=32)
