"""Every mesh trains every depth and BatchNorm policy, with one device's numbers.

In float64, where rounding is far below 1e-5 and what a wrong mean would change.
"""

from functools import partial

import jax
import numpy as np
import pytest
from train_tiny import TRAINED, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.machine.mesh import make_mesh

# Everything (each kind of unit and kernel), within an MBConv block, and the head alone.
DEPTHS = (59, 9, 0)
LOSSES = ("loss", "val_loss", "train_mode_loss")


@pytest.fixture(scope="module")
def double():
    network = with_dtype(with_head(make_backbone("tiny"), 3), "float64")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINED + 8, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 8).astype(np.int32)
    with jax.enable_x64(True):
        trees = jax.tree.map(np.float64, init(network.units, 0, 16))
        yield network, *trees, images, labels


def train(double, out, depth, policy, mesh=None):
    """Losses of two seeds, one epoch, and where they ended."""
    how = {"optimizer": "sgd", "seeds": (0, 1), "epochs": 1, "mesh": mesh}
    trained = train_tiny(*double, out, depth=depth, policy=policy, **how)
    losses = [[own.epochs[0][name] for name in LOSSES] for own in trained]
    return losses, [own.state for own in trained]


@pytest.fixture(scope="module")
def one_device(double, tmp_path_factory):
    def run(depth, policy):
        if (depth, policy) not in found:
            out = tmp_path_factory.mktemp("one")
            found[depth, policy] = train(double, out, depth, policy)
        return found[depth, policy]

    found = {}
    return run


MATRIX = [
    pytest.param(mesh, policy, marks=() if quick else pytest.mark.slow)
    for mesh, *quick_policies in (
        ("data=4,variant=2",),  # also in `test_eight_devices`
        ("variant=2", "frozen"),
        ("data=2",),
    )
    for policy in ("follow", "frozen", "recalibrate")
    for quick in [policy in quick_policies]
]


@pytest.mark.parametrize(("mesh", "policy"), MATRIX)
def test_a_mesh_has_the_numbers_of_one_device(
    double, one_device, tmp_path, mesh, policy
):
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    for depth in DEPTHS:
        if depth == 0 and policy != "frozen":  # it has no BatchNorm
            continue
        place = tmp_path / str(depth)
        losses, states = train(double, place, depth, policy, make_mesh(mesh, 8))
        expected, ends = one_device(depth, policy)
        close(losses, expected)
        for state, end in zip(states, ends, strict=True):
            assert state.keys() == end.keys()
            for name, leaf in state.items():
                close(leaf, end[name], err_msg=name)
