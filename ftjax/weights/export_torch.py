"""Trained networks under PyTorch's names: for timm or torchvision, as safetensors.

The map of names is the one that reads such files (`torch_names`), turned around.
"""

from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.heads import with_head
from ftjax.trees import Tree
from ftjax.weights.convert import leaf_shapes, torch_origin
from ftjax.weights.torch_names import modules, tensor_name, timm_modules

# Networks that both libraries build with any number of classes.
MADE = ("resnet", "mobilenet", "convnext", "vit", "alexnet")
UNKNOWN = ("densenet121", "effnetv2s")
VGG_HEAD = "classifier"  # of the linear head that `torch_code` gives VGG


def torch_bytes(
    network: Backbone,
    params: Tree,
    batch_stats: Tree,
    *,
    size: int,
    about: Mapping[str, str],
) -> bytes:
    """The content of a .safetensors file: the state dict of the model of `torch_code`.

    Args:
        network: a backbone with its head.
        params: by unit, layer, leaf.
        batch_stats: likewise.
        size: height and width of the images, in pixels.
        about: metadata, text by name.

    Raises:
        ValueError: neither library has the network's graph.
    """
    named = module_names(network, size)
    tensors, shapes = {}, leaf_shapes(network, size)
    for target in shapes:
        unit, key, leaf = target
        tree = batch_stats if leaf in ("mean", "var") else params
        origin = torch_origin(tensor_name(named, *target), target, shapes)
        array = np.asarray(tree[unit][key][leaf], np.float32)
        # The axes of an origin lead from PyTorch's order to ours.
        if origin.view:
            array = array.reshape([origin.view[axis] for axis in origin.axes])
        array = array.transpose(np.argsort(origin.axes))
        if origin.view:
            array = array.reshape(len(array), -1)
        if leaf == "gamma":
            array = array[:, None, None]
        tensors[origin.name] = np.ascontiguousarray(array)
    return save(tensors, dict(about))


def module_names(network: Backbone, size: int) -> dict[tuple[str, str], str]:
    """The modules of the library that `torch_code` takes the network from.

    Raises:
        ValueError: neither library has the network's graph.
    """
    if network != with_head(network, network.head[-1].module.num_classes):
        raise ValueError(
            f"{network.name} has a head with hidden layers, which neither timm's nor "
            "torchvision's model has; ONNX, Keras and safetensors take it"
        )
    if network.name.startswith(("effnetb", "effnetlite")):
        return timm_modules(network)
    if network.name.startswith("vgg"):
        return modules(network) | {("predictions", "predictions"): VGG_HEAD}
    if network.source == "timm" and size != network.native_size:
        raise ValueError(
            f"timm interpolates the positions of {network.name} in another way, so at "
            f"{size} pixels its logits would differ; safetensors takes it, and so does "
            f"timm after a sweep with --image-size {network.native_size}"
        )
    if network.name.startswith(MADE) and network.source in ("torchvision", "timm"):
        return modules(network)
    reason = "neither timm nor torchvision has it"
    if network.name.startswith("resnet"):
        reason = f"their strides are others; train {network.name}_torch for that"
    elif network.name.startswith("alexnet"):
        reason = "theirs has one column; train alexnet_torch for that"
    elif network.name in UNKNOWN:
        reason = "what they call its modules is not known here"
    raise ValueError(
        f"{network.name} cannot be exported to PyTorch's names: {reason}. ONNX, Keras "
        "and safetensors take every network"
    )


def timm_name(name: str) -> str:
    """What timm calls a network."""
    if name.startswith("vit"):
        return f"{name}_patch16_224"
    return f"tf_efficientnet_{name.removeprefix('effnet')}"


def torch_code(network: Backbone, *, size: int, file_name: str) -> str:
    """The PyTorch code that builds the model, loads the file and prepares images.

    Raises:
        ValueError: neither library has the network's graph.
    """
    module_names(network, size)
    classes = network.head[-1].module.num_classes
    preprocessing = network.body[0].module.preprocessing
    name = network.name.removesuffix("_torch")
    if name.startswith(("effnet", "vit")):
        name = timm_name(name)
        lines = ["import timm"]
        lines.append(f"model = timm.create_model({name!r}, num_classes={classes})")
    elif name.startswith("vgg"):
        lines = [
            "import torchvision",
            f"model = torchvision.models.{name}()",
            "model.avgpool = torch.nn.AdaptiveAvgPool2d(1)",
            f"model.classifier = torch.nn.Linear(512, {classes})",
        ]
    else:
        name = name.replace("netv3", "net_v3")
        lines = [
            "import torchvision",
            f"model = torchvision.models.{name}(num_classes={classes})",
        ]
    mean, std = (list(map(float, v)) for v in (preprocessing.mean, preprocessing.std))
    turn = ".flip(1)  # BGR" if preprocessing.bgr else ""
    return "\n".join(
        [
            "import safetensors.torch",
            "import torch",
            *lines,
            f"model.load_state_dict(safetensors.torch.load_file({file_name!r}))",
            "model.eval()",
            f"# images: float, RGB in 0..255, (batch, 3, {size}, {size})",
            f"mean = torch.tensor({mean}).view(3, 1, 1)",
            f"std = torch.tensor({std}).view(3, 1, 1)",
            f"x = images{turn}",
            "logits = model((x - mean) / std)",
            "",
        ]
    )
