"""Under which licences pretrained weights are published."""

IMAGENET = "trained on ImageNet, whose images are for research and education"
# By the beginning of a network's name; the first that fits.
LICENCES = {
    "effnet": "Apache-2.0 (github.com/tensorflow/tpu)",
    "resnet18": "BSD-3-Clause (torchvision)",
    "resnet34": "BSD-3-Clause (torchvision)",
    "mobilenetv3": "BSD-3-Clause (torchvision)",
    "convnext": "BSD-3-Clause (torchvision)",
    "densenet": "BSD-3-Clause (github.com/liuzhuang13/DenseNet)",
    "resnet": "MIT (Kaiming He, github.com/KaimingHe/deep-residual-networks)",
    "vgg": "CC BY 4.0 (Visual Geometry Group, University of Oxford)",
}


def licence_of(model: str, weights: str) -> str:
    """The licence of a network's pretrained weights, in words.

    Args:
        model: name of the network.
        weights: as `--weights` took it.
    """
    if weights == "random":
        return "none: the network started from random weights"
    prefix = next((p for p in LICENCES if model.startswith(p)), None)
    if weights != "imagenet" or model.endswith("_torch") or prefix is None:
        return "of the file that the weights were read from; ask its source"
    return f"{LICENCES[prefix]}; {IMAGENET}"
