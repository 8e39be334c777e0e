"""Trials of a network at hand, trained by the product's own loop."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from ftjax.backbones.backbone import draw_variables
from ftjax.data import Arrays, Dataset
from ftjax.data.augment import stored_views
from ftjax.depth import make_cut
from ftjax.frozen.forward import Activations, advance
from ftjax.frozen.placement import Placement
from ftjax.frozen.start import make_start
from ftjax.sweep import records
from ftjax.sweep.checkpoint import Checkpoints
from ftjax.sweep.cost import Flops
from ftjax.sweep.epochs import Work
from ftjax.sweep.trial import Hyperparameters, Subject, Trial, trial_network
from ftjax.sweep.trials import train_trials
from ftjax.trees import Tree

TRAINED = 16  # images; the others are for validation


class Trained(NamedTuple):
    """What a trial left: arrays of its last state by path, epochs, right answers."""

    state: dict[str, np.ndarray]
    epochs: list[dict[str, Any]]
    correct: np.ndarray


def train_tiny(
    network,
    params: Tree,
    batch_stats: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    out,
    *,
    depth: int = 18,
    policy: str = "follow",
    boundary: int | None = None,
    seeds=(0,),
    epochs: int = 2,
    form=lambda train: train,
    fused: bool = False,
    mesh=None,
    **hyper,
) -> list[Trained]:
    """Trains one trial per seed, all of them at once.

    Args:
        form: of the activations that are trained on, from those in memory.
        mesh: devices that share batches and trials.
        hyper: what differs from Adam at 0.01 on batches of 8, drop-connect 0.5.
    """
    size = images.shape[1]
    data = Dataset(
        "made",
        ("a", "b", "c"),
        Arrays(images[:TRAINED], labels[:TRAINED]),
        Arrays(images[TRAINED:], labels[TRAINED:]),
        None,
        "0",
        "",
        0,
    )
    start = make_start(network, size, params, batch_stats, weights="random", mesh=mesh)
    cut = make_cut(trial_network(network, hyper.get("head", "linear")), depth)
    boundary = cut.unit if boundary is None else boundary
    x = advance(network[:boundary], params, batch_stats, images, batch_size=8)
    usual = {"lr": 1e-2, "head_lr_factor": 10.0, "weight_decay": 1e-3}
    usual |= {"drop_connect": 0.5, "optimizer": "adam", "batch_size": 8}
    usual |= {"micro_batch": 8, "epochs": epochs}
    own = Hyperparameters(**(usual | hyper))
    views = None
    if own.stored_views:
        views = stored_views(data.train.images, own.words, own.stored_views)
        views = advance(network[:boundary], params, batch_stats, views, batch_size=8)
        views = form(views) if isinstance(views, np.ndarray) else views
    train, val = x[:TRAINED], x[TRAINED:]
    activations = Activations(boundary, form(train), form(val), views=views)
    subject = Subject(network.name, "random", "0", size, network.dtype)
    place, flops = Placement(boundary), Flops(0, 0)
    trials = tuple(
        Trial(subject, cut, policy, seed, own, place, flops) for seed in seeds
    )
    failed = []

    def listen(event):
        failed.extend([event.message] if event.status == "failed" else [])

    work = Work(trials, activations, epochs)
    dtype = jax.tree.leaves(params)[0].dtype  # also of the head, which is drawn anew

    def draw(shapes, seed):
        fresh = draw_variables(shapes, seed)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), fresh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftjax.backbones.heads.draw_variables", draw)
        how = {"mesh": mesh, "fused": fused}
        train_trials(work, start, data, out=out, listen=listen, **how)
    assert not failed, failed
    return [read(out, trial.id) for trial in trials]


def read(out, trial: str) -> Trained:
    """What the records hold of a trial."""
    store = Checkpoints(records.trial_folder(out, trial) / "checkpoint")
    leaves = store.restore().leaves
    store.close()
    state = {k: v for k, v in leaves.items() if k.startswith("state/")}
    epochs = records.read_trial(out, trial)["epochs"]
    return Trained(state, epochs, records.read_correct(out, trial))


def on_device(x: np.ndarray) -> jax.Array:
    """A form of the activations."""
    return jax.device_put(x)
