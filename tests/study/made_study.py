"""A study whose runs are planted instead of trained."""

import numpy as np
import pandas as pd

from ftjax.study.measured import Measured, weigh
from ftjax.study.points import MODES, QUICK, WHOLE
from ftjax.study.results import Study

SEEDS, IMAGES, CLASSES = 3, 4000, 5


def planted(accuracy, design=QUICK, *, train=None, diverged=()):
    """The runs of a study.

    Args:
        accuracy: of an arm, on average over images and seeds.
        design: whose arms they are of.
        train: likewise on training images; by default three points above it.
        diverged: arms whose loss became no number.
    """
    rng = np.random.default_rng(0)
    hard = rng.random(IMAGES)  # images are as hard for all
    cells, rows, correct, training, lost = {}, {}, [], [], []
    for mode in MODES:
        for arm in design.arms:
            gone = arm in diverged
            mean = 1 / CLASSES if gone else accuracy(arm)
            cells[mode, arm] = len(cells)
            shares = mean + 0.003 * rng.standard_normal(SEEDS)
            right = [(hard < share).astype(float) for share in shares]
            correct.append(np.full((SEEDS, IMAGES), mean) if gone else right)
            seen = mean if gone else (mean + 0.03 if train is None else train(arm))
            training.append(np.full(SEEDS, seen))
            lost.append([gone] * SEEDS)
            values = {**design.base, **dict(arm.changes)}
            for seed in range(SEEDS):
                rows[mode, arm, seed] = {
                    "trial": f"{mode}-{cells[mode, arm]}-{seed}",
                    "status": "diverged" if gone else "done",
                    "seconds": 3.0 + (mode == WHOLE) + 20 / values["batch_size"],
                    **values,
                }
    return Measured(
        cells, rows, np.array(correct), np.array(training), np.array(lost), CLASSES
    )


def made_study(measured, design=QUICK):
    """What the figures show of planted runs."""
    epochs = []
    for row in measured.rows.values():
        for epoch in range(1, row["epochs"] + 1):
            value = 0.9 - 0.7 * np.exp(-epoch * 128 / row["batch_size"] / 9)
            epochs.append((row["trial"], epoch, value, min(value + 0.02 * epoch, 1)))
    columns = ["trial", "epoch", "val_accuracy", "train_mode_accuracy"]
    moved = [
        (seed, f"block{number}", 0.002 * (number + 1) + 0.0004 * seed, 10.0)
        for seed in range(SEEDS)
        for number in range(8)
    ]
    steps = {
        row["trial"]: np.stack(
            [
                np.linspace(1.6, 0.4, 400),
                0.9 - 0.7 * np.exp(-np.arange(400) * row["lr"] * 400),
            ],
            axis=1,
        )
        for row in measured.rows.values()
    }
    return Study(
        design,
        measured,
        weigh(measured),
        pd.DataFrame(epochs, columns=columns),
        steps.get,
        pd.DataFrame(moved, columns=["seed", "block", "change", "norm"]),
    )
