"""Five steps of training, by ftjax and by PyTorch, and how far apart they end."""

import jax.numpy as jnp
import numpy as np

from ftjax.depth import make_cut
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

STEPS, RATE, MOMENTUM = 5, 1e-3, 0.9
TOLERANCE = 1e-2  # of what five steps change


def train(network, params, stats, images, labels, *, torch, model, x):
    """SGD with momentum on all layers, BatchNorm in inference mode, one batch.

    PyTorch's steps are float64. In float32 its ResNet18 leaves them by 3 % of what five
    steps change: a ReLU whose input is within rounding of 0 is on or off.

    Args:
        network: a backbone with its head.
        params: its parameters.
        stats: its statistics.
        images: (batch, h, w, 3) uint8.
        labels: (batch,) int32.
        torch: the package.
        model: PyTorch's network with the same weights, in inference mode; trained in
            place.
        x: the images as it takes them.

    Returns:
        The parameters that ftjax ends with.
    """
    suffix = make_suffix(network, make_cut(network, len(network.layers)), "frozen")
    state = init_state(suffix, params, stats, optimizer="sgd")
    hyper = Hyper(jnp.float32(RATE), jnp.float32(1), jnp.float32(0))
    batch = Batch(jnp.asarray(images), jnp.asarray(labels))
    model, x = model.double(), x.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    answers = torch.from_numpy(labels.astype(np.int64))
    for _ in range(STEPS):
        state, _ = train_step(suffix, state, [batch], hyper, optimizer="sgd")
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), answers).backward()
        optimizer.step()
    return state.params


def deviation(found, expected, start, what):
    """How far a leaf ends from PyTorch's, over the norm of that.

    What the steps changed must agree as well, as far as float32 holds it.
    """
    norm = np.linalg.norm
    found, expected, start = map(np.ravel, (found, expected, start))
    lost = STEPS * np.finfo(np.float32).eps * norm(start)
    apart = norm(found - expected)
    assert apart < TOLERANCE * norm(expected - start) + lost, what
    return float(apart / norm(expected))
