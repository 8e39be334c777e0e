"""PyTorch and torchvision, as fast as they run eagerly.

Memory format channels_last; what is frozen has no gradient and its BatchNorms are in
inference mode; evaluation in `inference_mode`. On a GPU the images are there from the
start, Adam is a single kernel, and cuDNN's first choice is taken, as in ftjax.
torchvision's ResNets stride in the 3x3 convolution (v1.5) where Keras' stride in the
first 1x1: 2 % more FLOPs in ResNet152.
"""

# pyright: reportMissingImports=false
import copy
from collections.abc import Iterator

import numpy as np
import torch
import torchvision
from torch import nn

from experiments.benchmark.peers import STEPS, Work, random_batch, seconds_of
from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.depth import make_cut

BUILDERS = {
    "effnetb0": lambda: torchvision.models.efficientnet_b0(stochastic_depth_prob=0.0),
    "resnet50": torchvision.models.resnet50,
    "resnet152": torchvision.models.resnet152,
    "vgg16": torchvision.models.vgg16,
}
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DEVICES = {"cpu": "cpu", "gpu": "cuda"}


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
        for name, values in (("center", MEAN), ("spread", DEVIATION)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

    def forward(self, x):
        """Logits (batch, 10), float32, of images (batch, 3, h, w) in 0..255."""
        x = (x.float() - self.center) / self.spread
        return self.head(self.features(x).mean((2, 3))).float()


def fresh_model(work: Work) -> Classifier:
    """On the device of the work, as all of its peers.

    Raises:
        RuntimeError: PyTorch has no such device.
    """
    if work.device not in DEVICES:
        raise RuntimeError(f"PyTorch is not measured on a {work.device}")
    if work.device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does
    torch.manual_seed(0)
    model = Classifier(work.model).to(memory_format=torch.channels_last)
    return model.to(DEVICES[work.device])


def precision(work: Work) -> torch.autocast:
    """A context in which the network computes in the type of the work."""
    mixed = work.dtype == "bfloat16"
    return torch.autocast(DEVICES[work.device], torch.bfloat16, enabled=mixed)


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


def trainer(model: Classifier, work: Work, depth: int, form=lambda model: model):
    """A function of (images, labels) that does one step, of the model in a form."""
    norms = unfreeze(model, work, depth)
    backbone = [p for p in model.features.parameters() if p.requires_grad]
    groups = [{"params": model.head.parameters(), "lr": 1e-3}]
    if backbone:
        groups.append({"params": backbone, "lr": 1e-4})
    optimizer = torch.optim.Adam(groups, fused=work.device == "gpu")
    loss_function, run = nn.CrossEntropyLoss(), form(model)

    def prepare() -> None:
        model.eval()
        for norm in norms:
            norm.train()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with precision(work):
            logits = run(images)
        loss = loss_function(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return prepare, step


@torch.inference_mode()
def count_correct(work: Work, model: Classifier, batches, labels) -> int:
    """Right answers of a model in evaluation mode."""
    pairs = zip(batches, labels, strict=True)
    with precision(work):
        return int(sum((model(x).argmax(1) == y).sum() for x, y in pairs))


def to_tensors(
    work: Work, images: np.ndarray, labels: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, h, w, 3) uint8 as (n, 3, h, w) in channels_last memory, and (n,) int64."""
    device = DEVICES[work.device]
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    return x.to(device).permute(0, 3, 1, 2), y.to(device)


def wait(work: Work) -> None:
    """Until the device has done what it was given."""
    if work.device == "gpu":
        torch.cuda.synchronize()


def steps(work: Work, form=lambda model: model) -> Iterator[float]:
    """Steps from images: PyTorch has no cache of the frozen part.

    Args:
        work: that is done.
        form: of the model that runs.
    """
    model = fresh_model(work)
    prepare, step = trainer(model, work, work.depths[0], form)
    prepare()
    x, y = to_tensors(work, *random_batch(work))

    def run(count: int) -> None:
        for _ in range(count):
            step(x, y)
        wait(work)

    yield seconds_of(lambda: run(1))
    while True:
        yield seconds_of(lambda: run(STEPS)) / STEPS


def compiled(work: Work) -> Iterator[float]:
    """As `steps`, compiled."""
    yield from steps(work, torch.compile)


def estimate(work: Work, form=lambda model: model) -> Iterator[float]:
    """Seconds of a sweep, in one turn: its steps and passes, timed at every depth.

    Args:
        work: that is done.
        form: of the model that runs.
    """
    x, y = to_tensors(work, *random_batch(work))
    fresh, total = fresh_model(work), 0.0
    count = work.train_size // work.batch_size
    for depth in work.depths:
        model = copy.deepcopy(fresh)
        prepare, step = trainer(model, work, depth, form)

        def train(prepare=prepare, step=step) -> None:
            prepare()
            for _ in range(STEPS):
                step(x, y)
            wait(work)

        def look(model=model) -> None:
            model.eval()
            for _ in range(STEPS):
                count_correct(work, model, [x], [y])
            wait(work)

        first = sum(seconds_of(call) for call in (train, look))  # with what it compiles
        trained = min(seconds_of(train) for _ in range(2)) / STEPS
        passed = min(seconds_of(look) for _ in range(2)) / STEPS / work.batch_size
        looked = work.epochs * work.val_size + work.train_size
        total += first + work.epochs * count * trained + looked * passed
    yield total


def estimate_compiled(work: Work) -> Iterator[float]:
    """As `estimate`, compiled."""
    yield from estimate(work, torch.compile)


def grid(work: Work) -> Iterator[float]:
    """One trial per turn; epochs end with validation, the last with both sets."""
    tensors = np.load(work.images)
    fresh = fresh_model(work)
    train_set, val_set = (
        to_tensors(work, tensors[f"{s}_images"], tensors[f"{s}_labels"])
        for s in ("train", "val")
    )

    def train(depth: int) -> None:
        model = copy.deepcopy(fresh)
        prepare, step = trainer(model, work, depth)
        for epoch in range(1, work.epochs + 1):
            prepare()
            images, labels = train_set
            order = torch.randperm(len(labels), device=labels.device)
            for rows in order.split(work.batch_size):
                if len(rows) == work.batch_size:
                    step(images[rows], labels[rows])
            model.eval()
            for both in (val_set, train_set) if epoch == work.epochs else (val_set,):
                count_correct(work, model, *(x.split(work.batch_size) for x in both))

    for _ in range(work.seeds):
        for depth in sorted(work.depths, reverse=True):
            yield seconds_of(lambda depth=depth: train(depth))
