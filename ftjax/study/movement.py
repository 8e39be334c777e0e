"""How far training moved the weights of each block."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ftjax.frozen.start import Start
from ftjax.predictor import read_checkpoint
from ftjax.study.measured import Measured
from ftjax.study.points import WHOLE, Arm
from ftjax.sweep import records
from ftjax.weights import own_names

COLUMNS = "seed block change norm".split()


def layer_changes(out: Path, measured: Measured, start: Start) -> pd.DataFrame:
    """The change of every block of the backbone, with all layers trained.

    It is of the trials of the base's settings, after the last epoch that they were
    trained to.

    Args:
        out: the run's folder.
        measured: the runs.
        start: the pretrained network.

    Returns:
        Columns `seed`, `block`, `change` (norm of the difference of all its weights,
        over the norm of those that it started from) and `norm` (the latter); in the
        order of the network.
    """
    rows = []
    for seed in range(measured.correct.shape[1]):
        row = measured.rows.get((WHOLE, Arm(), seed))
        if row is None or row["status"] != "done":
            continue
        folder = records.trial_folder(out, row["trial"]) / "checkpoint"
        trained = read_checkpoint(folder, start.network.name)
        rows += [(seed, *own) for own in block_changes(start, trained)]
    return pd.DataFrame(rows, columns=COLUMNS)


def block_changes(
    start: Start, trained: dict[str, np.ndarray]
) -> Iterator[tuple[str, float, float]]:
    """Name, change and norm of every block that has weights."""
    for unit in start.network.body:
        params = {unit.name: start.params.get(unit.name, {})}
        before = own_names.flatten(start.network.name, params, {})
        own = [name for name in before if name in trained]
        if not own:
            continue
        first = [np.asarray(before[name], np.float64) for name in own]
        moved = [trained[name] - old for name, old in zip(own, first, strict=True)]
        norm, change = (
            float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
            for leaves in (first, moved)
        )
        yield unit.name, change / norm, norm
