"""PyTorch's modules of MobileNetV3, ConvNeXt (torchvision) and transformers (timm)."""

from ftjax.backbones.backbone import Backbone
from ftjax.backbones.mobilenet import InvertedBottleneck

Modules = dict[tuple[str, str], str]  # by unit and key

MOBILENET_END = {
    ("dense", "fc"): "classifier.0",
    ("predictions", "predictions"): "classifier.3",
}
CONVNEXT_BLOCK = {
    "dwconv": "block.0",
    "norm": "block.2",
    "fc1": "block.3",
    "fc2": "block.5",
    "scale": "layer_scale",
}
CONVNEXT_END = {
    ("norm", "norm"): "classifier.0",
    ("predictions", "predictions"): "classifier.2",
}
VIT_END = {
    ("patches", "proj"): "patch_embed.proj",
    ("patches", "cls"): "cls_token",
    ("patches", "pos"): "pos_embed",
    ("norm", "norm"): "norm",
    ("predictions", "predictions"): "head",
}
VIT_BLOCK = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def mobilenet_modules(network: Backbone) -> Modules:
    """`features.<i>` with a step of a block for each convolution or excitation."""
    found = dict(MOBILENET_END)
    for position, unit in enumerate(network.body[:-1]):
        if not isinstance(unit.module, InvertedBottleneck):
            found[unit.name, "conv"] = f"features.{position}.0"
            found[unit.name, "bn"] = f"features.{position}.1"
            continue
        steps = [("expand_conv", "expand_bn")] if unit.module.expands else []
        steps += [("dwconv", "bn")]
        if unit.module.shape.excite:
            steps += [("se_reduce", "se_expand")]
        steps += [("project_conv", "project_bn")]
        for number, step in enumerate(steps):
            names = ("fc1", "fc2") if "se_reduce" in step else ("0", "1")
            for key, name in zip(step, names, strict=True):
                module = f"features.{position}.block.{number}.{name}"
                found[unit.name, key] = module
    return found


def convnext_modules(network: Backbone) -> Modules:
    """`features.<i>`: the stem, then stages and reductions in turn."""
    found = CONVNEXT_END | {
        ("stem", "conv"): "features.0.0",
        ("stem", "norm"): "features.0.1",
    }
    for unit in network.body[1:-1]:
        stage = int(unit.name.partition("_")[0][-1])
        if unit.name.startswith("down"):
            found[unit.name, "norm"] = f"features.{2 * stage - 2}.0"
            found[unit.name, "conv"] = f"features.{2 * stage - 2}.1"
            continue
        block = int(unit.name.rpartition("block")[2]) - 1
        for key, name in CONVNEXT_BLOCK.items():
            found[unit.name, key] = f"features.{2 * stage - 1}.{block}.{name}"
    return found


def vit_modules(network: Backbone) -> Modules:
    """`blocks.<i>`, counted from 0."""
    found = dict(VIT_END)
    for number, unit in enumerate(network.body[1:-1]):
        for key in unit.parameter_keys:
            found[unit.name, key] = f"blocks.{number}.{VIT_BLOCK.get(key, key)}"
    return found
