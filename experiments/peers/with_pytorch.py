"""PyTorch and torchvision, as fast as they run eagerly on a CPU.

Memory format channels_last; what is frozen has no gradient and its BatchNorms are in
inference mode; evaluation in `inference_mode`. torchvision's ResNets stride in the 3x3
convolution (v1.5) where Keras' stride in the first 1x1: 2 % more FLOPs in ResNet152.
"""

# pyright: reportMissingImports=false
import copy
from collections.abc import Iterator

import numpy as np
import torch
import torchvision
from torch import nn

from experiments.peers import STEPS, Work, random_batch, seconds_of
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import with_head
from ftjax.depth import make_cut

BUILDERS = {
    "effnetb0": lambda: torchvision.models.efficientnet_b0(stochastic_depth_prob=0.0),
    "resnet50": torchvision.models.resnet50,
    "resnet152": torchvision.models.resnet152,
    "vgg16": torchvision.models.vgg16,
}
MEAN = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
DEVIATION = torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)


class Classifier(nn.Module):
    """torchvision's features, their average, and a linear layer of 10 classes."""

    def __init__(self, model: str):
        super().__init__()
        whole = BUILDERS[model]()
        parts = list(whole.children())
        self.features = (
            nn.Sequential(*parts[:-2]) if model.startswith("resnet") else parts[0]
        )
        width = {"effnetb0": 1280, "vgg16": 512}.get(model, 2048)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = (x.float() - MEAN) / DEVIATION
        return self.head(self.features(x).mean((2, 3)))


def unfreeze(model: Classifier, work: Work, depth: int) -> list[nn.Module]:
    """Unfreezes as many layers with parameters as Keras' depth does.

    Returns:
        The BatchNorms that train.
    """
    network = with_head(make_backbone(work.model), 10)
    cut = make_cut(network, depth)
    count = sum(map(len, cut.trainable)) - 1  # the head
    layers = [m for m in model.features.modules() if list(m.parameters(recurse=False))]
    trainable = layers[len(layers) - count :]
    model.requires_grad_(False)
    for layer in (*trainable, model.head):
        layer.requires_grad_(True)
    return [m for m in trainable if isinstance(m, nn.BatchNorm2d)]


def trainer(model: Classifier, work: Work, depth: int):
    """A function of (images, labels) that does one step."""
    norms = unfreeze(model, work, depth)
    backbone = [p for p in model.features.parameters() if p.requires_grad]
    groups = [{"params": model.head.parameters(), "lr": 1e-3}]
    if backbone:
        groups.append({"params": backbone, "lr": 1e-4})
    optimizer = torch.optim.Adam(groups)
    loss_function = nn.CrossEntropyLoss()

    def prepare() -> None:
        model.eval()
        for norm in norms:
            norm.train()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return prepare, step


@torch.inference_mode()
def count_correct(model: Classifier, batches, labels) -> int:
    """Right answers of a model in evaluation mode."""
    pairs = zip(batches, labels, strict=True)
    return sum((model(x).argmax(1) == y).sum().item() for x, y in pairs)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 as (n, 3, h, w) in channels_last memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def steps(work: Work) -> Iterator[float]:
    """Steps from pictures: PyTorch has no cache of the frozen part."""
    torch.manual_seed(0)
    model = Classifier(work.model).to(memory_format=torch.channels_last)
    prepare, step = trainer(model, work, work.depths[0])
    prepare()
    images, labels = random_batch(work)
    x, y = to_tensor(images), torch.from_numpy(labels)

    def run(count: int) -> None:
        for _ in range(count):
            step(x, y)

    yield seconds_of(lambda: run(1))
    while True:
        yield seconds_of(lambda: run(STEPS)) / STEPS


def grid(work: Work) -> Iterator[float]:
    """One training per turn; epochs end with validation, the last with both sets."""
    pictures = np.load(work.pictures)
    train_x, val_x = (to_tensor(pictures[f"{s}_images"]) for s in ("train", "val"))
    train_y, val_y = (
        torch.from_numpy(pictures[f"{s}_labels"].astype(np.int64))
        for s in ("train", "val")
    )
    torch.manual_seed(0)
    fresh = Classifier(work.model).to(memory_format=torch.channels_last)

    def train(depth: int) -> None:
        model = copy.deepcopy(fresh)
        prepare, step = trainer(model, work, depth)
        for epoch in range(1, work.epochs + 1):
            prepare()
            order = torch.randperm(len(train_x))
            for rows in order.split(work.batch_size):
                if len(rows) == work.batch_size:
                    step(train_x[rows], train_y[rows])
            model.eval()
            sets = [(val_x, val_y)]
            if epoch == work.epochs:
                sets.append((train_x, train_y))
            for x, y in sets:
                count_correct(model, x.split(work.batch_size), y.split(work.batch_size))

    for _ in range(work.seeds):
        for depth in sorted(work.depths, reverse=True):
            yield seconds_of(lambda depth=depth: train(depth))
