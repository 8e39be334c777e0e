"""The networks by the name that `--model` takes."""

from collections.abc import Callable
from functools import partial

from ftjax.backbones.alexnet import alexnet, alexnet_torch
from ftjax.backbones.backbone import Backbone
from ftjax.backbones.convnext import convnext
from ftjax.backbones.densenet import densenet121
from ftjax.backbones.efficientnet import efficientnet, efficientnet_lite
from ftjax.backbones.efficientnet_v2 import efficientnet_v2
from ftjax.backbones.mobilenet import mobilenet_v3
from ftjax.backbones.resnet import resnet
from ftjax.backbones.tiny import tiny
from ftjax.backbones.vgg import vgg
from ftjax.backbones.vit import vit

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "effnetlite0": partial(efficientnet_lite, "effnetlite0"),
    "effnetlite1": partial(efficientnet_lite, "effnetlite1"),
    "effnetlite2": partial(efficientnet_lite, "effnetlite2"),
    "effnetb0": partial(efficientnet, "effnetb0"),
    "effnetb1": partial(efficientnet, "effnetb1"),
    "effnetb2": partial(efficientnet, "effnetb2"),
    "effnetb3": partial(efficientnet, "effnetb3"),
    "effnetb4": partial(efficientnet, "effnetb4"),
    "effnetb5": partial(efficientnet, "effnetb5"),
    "effnetb6": partial(efficientnet, "effnetb6"),
    "effnetb7": partial(efficientnet, "effnetb7"),
    "effnetv2s": partial(efficientnet_v2, "effnetv2s"),
    "resnet18": partial(resnet, "resnet18", torchvision=True),
    "resnet34": partial(resnet, "resnet34", torchvision=True),
    "resnet50": partial(resnet, "resnet50"),
    "resnet101": partial(resnet, "resnet101"),
    "resnet152": partial(resnet, "resnet152"),
    "vgg16": partial(vgg, "vgg16"),
    "vgg19": partial(vgg, "vgg19"),
    "resnet50_torch": partial(resnet, "resnet50", torchvision=True),
    "resnet101_torch": partial(resnet, "resnet101", torchvision=True),
    "resnet152_torch": partial(resnet, "resnet152", torchvision=True),
    "vgg16_torch": partial(vgg, "vgg16", torchvision=True),
    "vgg19_torch": partial(vgg, "vgg19", torchvision=True),
    "alexnet": alexnet,
    "alexnet_ksh": partial(alexnet, "alexnet_ksh"),
    "alexnet_torch": alexnet_torch,
    "densenet121": densenet121,
    "mobilenetv3_small": partial(mobilenet_v3, "mobilenetv3_small"),
    "mobilenetv3_large": partial(mobilenet_v3, "mobilenetv3_large"),
    "convnext_tiny": partial(convnext, "convnext_tiny"),
    "convnext_base": partial(convnext, "convnext_base"),
    "vit_small": partial(vit, "vit_small"),
    "vit_base": partial(vit, "vit_base"),
    "tiny": tiny,
}


OWN = frozenset(BACKBONES)


def add_backbone(backbone: Backbone) -> None:
    """Makes a backbone of one's own known by its name, in this process.

    A backbone that was added before under that name is replaced: trials are told apart
    by the name, so give another graph another name.

    Raises:
        ValueError: the name is of a network of ftjax, or it cannot be trained.
    """
    if backbone.name in OWN:
        raise ValueError(
            f"model {backbone.name!r} is a network of ftjax; give yours another name"
        )
    if not backbone.body or not hasattr(backbone.body[0].module, "preprocessing"):
        raise ValueError(
            f"model {backbone.name!r}: its first unit's module needs a field "
            "`preprocessing`, a Preprocessing that it calls on the images"
        )
    names = [unit.name for unit in backbone.body]
    if len(set(names)) < len(names):
        raise ValueError(f"model {backbone.name!r}: two units have one name")
    if not any(unit.parameter_keys for unit in backbone.body):
        raise ValueError(
            f"model {backbone.name!r}: no unit has a Layer with a key, so there is "
            "nothing to unfreeze"
        )
    BACKBONES[backbone.name] = lambda: backbone


def make_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in BACKBONES:
        raise ValueError(
            f"unknown model {name!r}; --model takes one of {', '.join(BACKBONES)}"
        )
    return BACKBONES[name]()
