"""ResNet18 and 34, MobileNetV3, ConvNeXt and ViT: layers, and PyTorch's numbers.

`pytest -m parity -s tests/backbones/test_torch_networks.py` prints the deviations; it
needs torch, torchvision and timm.
"""

import five_steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import apply, boundary_shapes, variable_shapes
from ftjax.backbones.heads import with_head
from ftjax.backbones.vit import positions_for
from ftjax.gradcam.maps import find_stages
from ftjax.weights.convert import STATISTICS, leaf_shapes
from ftjax.weights.export_torch import torch_bytes, torch_code
from ftjax.weights.pretrained import convert_tensors
from ftjax.weights.torch_names import COUNTER, fits, origins, unwrap

TOLERANCE = 1e-4
TIMM = {"vit_small": "vit_small_patch16_224", "vit_base": "vit_base_patch16_224"}
TORCHVISION = {
    "mobilenetv3_small": "mobilenet_v3_small",
    "mobilenetv3_large": "mobilenet_v3_large",
}
# Parameters with a head of 1000 classes, as torchvision and timm publish them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "mobilenetv3_small": 2_542_856,
    "mobilenetv3_large": 5_483_032,
    "convnext_tiny": 28_589_128,
    "convnext_base": 88_591_464,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name):
    network = with_head(make_backbone(name), 1000)
    shapes = [tree["params"] for tree in variable_shapes(network.units, 64) if tree]
    leaves = jax.tree.leaves(shapes)
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_layer_with_parameters_has_a_module_of_its_own(name):
    network = with_head(make_backbone(name), 5)
    found = origins(network, leaf_shapes(network, 64))
    names = [origin.name for origin in found.values()]
    assert len(set(names)) == len(names)
    for unit in network.body:
        (tree,) = variable_shapes_of(network, unit)
        assert set(tree.get("params", {})) == set(unit.parameter_keys)


def variable_shapes_of(network, unit):
    at = network.units.index(unit)
    return variable_shapes(network.units[: at + 1], 64)[at:]


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_small"])
def test_bare_parameters_are_found_in_a_wrapper(name):
    network = make_backbone(name)
    shapes = leaf_shapes(network, 64)
    names = {origin.name for origin in origins(network, shapes).values()}
    tensors = {f"module.{own}": np.zeros(1, np.float32) for own in names}
    assert fits(network, tensors) and unwrap(network, tensors).keys() == names


def test_heat_maps_of_tokens_are_refused():
    network = make_backbone("vit_small")
    with pytest.raises(ValueError, match="patches gives .17, 384.*not of tokens"):
        find_stages(network.body, 64)


def test_timm_is_offered_at_the_own_size_alone():
    network = with_head(make_backbone("vit_small"), 5)
    assert "vit_small_patch16_224" in torch_code(network, size=224, file_name="a")
    with pytest.raises(ValueError, match="at 96 pixels its logits would differ"):
        torch_code(network, size=96, file_name="a")
    network = with_head(make_backbone("mobilenetv3_small"), 5)
    code = torch_code(network, size=96, file_name="a")
    assert "torchvision.models.mobilenet_v3_small(num_classes=5)" in code


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_small"])
def test_networks_with_layer_norm_have_no_batch_statistics(name):
    network = make_backbone(name)
    assert not any(unit.batch_norm_keys for unit in network.units)
    assert boundary_shapes(network.units, 64)[-1] == ((768,), (384,))[name[0] == "v"]


def test_positions_are_interpolated_for_other_sizes_alone():
    rng = np.random.default_rng(0)
    positions = jnp.asarray(rng.normal(size=(1, 197, 4)), jnp.float32)
    assert positions_for(positions, 14, 14) is positions
    flat = jnp.concatenate([positions[:, :1], jnp.full((1, 196, 4), 2.0)], 1)
    found = positions_for(flat, 6, 4)
    assert found.shape == (1, 25, 4)
    np.testing.assert_array_equal(found[:, 0], positions[:, 0])
    np.testing.assert_allclose(found[:, 1:], 2.0, rtol=1e-6)


def torch_model(name, classes=5):
    torch = pytest.importorskip("torch", reason="needs the extra benchmark")
    torch.manual_seed(0)
    if name in TIMM:
        timm = pytest.importorskip("timm", reason="needs timm")
        model = timm.create_model(TIMM[name], num_classes=classes)
    else:
        library = pytest.importorskip("torchvision", reason="needs torchvision")
        make = getattr(library.models, TORCHVISION.get(name, name))
        model = make(num_classes=classes)
    with torch.no_grad():
        for leaf, value in model.named_parameters():
            if leaf.endswith("layer_scale"):  # 1e-6: blocks would do nothing
                value.uniform_(0.2, 0.5)
            elif value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
        for leaf, value in model.named_buffers():
            if leaf.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif leaf.endswith("running_var"):
                value.uniform_(0.8, 1.2)
    return model.eval()


def ends(model, name):
    """The modules of PyTorch whose outputs are those of our units, in order."""
    if name in TIMM:
        # `norm` normalizes all tokens; the first of them is taken behind it.
        return [model.norm_pre, *model.blocks, model.fc_norm, model]
    if name.startswith("resnet"):
        stages = (model.layer1, model.layer2, model.layer3, model.layer4)
        blocks = [block for stage in stages for block in stage]
        return [model.maxpool, *blocks, model.avgpool, model]
    if name.startswith("mobilenet"):
        return [*model.features, model.classifier[1], model]
    units = []
    for part in model.features:
        last = type(part[0]).__name__ == "CNBlock"
        units += list(part) if last else [part]
    return [*units, model.classifier[0], model]


def run_torch(model, name, x):
    """Outputs at our units' ends as NumPy, channels last."""
    torch = pytest.importorskip("torch")
    kept = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, y, at=at: kept.__setitem__(at, y)
        )
        for at, module in enumerate(ends(model, name))
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    arrays = [kept[at].numpy() for at in sorted(kept)]
    return [np.moveaxis(a, 1, -1) if a.ndim == 4 else a for a in arrays]


def difference(found, expected):
    found, expected = np.ravel(found), np.ravel(expected)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parity
@pytest.mark.parametrize("name", PARAMETERS)
def test_forward_and_five_steps_are_pytorchs(name):
    torch = pytest.importorskip("torch", reason="needs the extra benchmark")
    model = torch_model(name)
    size = 224 if name in TIMM else 96
    network = with_head(make_backbone(name), 5)
    tensors = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    params, stats = convert_tensors(network, tensors, size=size, source="the model")
    exported = load(torch_bytes(network, params, stats, size=size, about={}))
    counters = {key for key in tensors if key.endswith(COUNTER)}
    assert exported.keys() == tensors.keys() - counters
    for key, value in exported.items():
        np.testing.assert_array_equal(value, tensors[key])
    empty = {unit.name: {} for unit in network.units}
    params, stats = empty | params, empty | stats
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    labels = rng.integers(0, 5, 2).astype(np.int32)
    scaled = network.body[0].module.preprocessing(jnp.asarray(images))
    x = torch.from_numpy(np.array(scaled).transpose(0, 3, 1, 2).copy())

    expected = run_torch(model, name, x)
    y, worst = jnp.asarray(images), 0.0
    for unit, wanted in zip(network.units, expected, strict=True):
        y = apply([unit], params, stats, y)
        worst = max(worst, difference(y, wanted.reshape(y.shape)))
    assert worst < TOLERANCE

    ours = five_steps.train(
        network, params, stats, images, labels, torch=torch, model=model, x=x
    )
    after = {key: value.numpy() for key, value in model.state_dict().items()}
    wanted, _ = convert_tensors(network, after, size=size, source="the model")
    steps = max(
        five_steps.deviation(
            ours[unit][key][leaf], value, params[unit][key][leaf], (unit, key, leaf)
        )
        for unit, layers in wanted.items()
        for key, leaves in layers.items()
        for leaf, value in leaves.items()
        if leaf not in STATISTICS
    )
    print(f"\n{name:18} forward {worst:.1e}  weights after 5 steps {steps:.1e}", end="")
