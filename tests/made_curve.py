"""Made tables of one depth curve: one accuracy per depth and seed.

The two curves are measured (EfficientNet-Lite0 on 1,400 digits, one seed); every other
column is made up.
"""

import numpy as np
import pandas as pd

LAYERS = np.array([0, 3, 12, 30, 54, 90, 110, 140, 149])
UNITS = np.array([0, 1, 2, 4, 7, 10, 13, 16, 18])
FOLLOW = np.array([0.917, 0.919, 0.94, 0.95, 0.942, 0.922, 0.869, 0.751, 0.542])
FROZEN = np.array([0.917, 0.945, 0.942, 0.955, 0.965, 0.985, 0.970, 0.982, 0.980])


def sweep(curve, *, bn="follow", seeds=3, noise=0.0, layers=LAYERS, key=0, **columns):
    """A results table: one accuracy per depth and seed, with costs and both gaps."""
    rng = np.random.default_rng(key)
    units = np.interp(layers, LAYERS, UNITS).round().astype(int)
    frames = []
    for seed in range(seeds):
        value = np.clip(curve + noise * rng.standard_normal(len(curve)), 0, 1)
        table = pd.DataFrame(
            {
                "trial": [f"{bn}-{L}-{seed}" for L in layers],
                "depth_layers": layers,
                "depth_units": units,
                "total_layers": 149,
                "total_units": 18,
                "bn": bn,
                "seed": seed,
                "val_accuracy": value,
                "accuracy": np.clip(value + 0.01, 0, 1),
                "train_mode_accuracy": np.clip(value + 0.01, 0, 1),
                "seconds": 10.0 + layers,
                "flops": 1e9 * (1 + layers),
                "trainable_params": 1000 * (1 + layers),
                "status": "done",
            }
        )
        frames.append(table.assign(**columns))
    return pd.concat(frames, ignore_index=True)


def images(results, *, count=600, spread=0.5, key=0):
    """Correctness of every trial: one difficulty per image, own noise per trial."""
    rng = np.random.default_rng(key)
    difficulty, found = rng.standard_normal(count), {}
    for trial, value in zip(results["trial"], results["val_accuracy"], strict=True):
        hardness = difficulty + spread * rng.standard_normal(count)
        right = np.zeros(count, bool)
        right[np.argsort(hardness)[: round(value * count)]] = True
        found[trial] = right
    return found
