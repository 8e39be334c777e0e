"""What the study has measured: every setting with its runs, paired over images."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.evidence import Evidence, weigh_evidence
from ftjax.study.points import MODES, Arm, Design
from ftjax.sweep.plan import Plan, Point

# Trial and number of epochs -> (n,) whether the validation images were right.
ReadCorrect = Callable[[str, int], np.ndarray | None]


class Measured(NamedTuple):
    """The runs of all settings; m settings (in both modes), s seeds, n images.

    Attributes:
        cells: (mode, arm) of each setting, with an index.
        rows: by (mode, arm, seed), the row of results.csv.
        correct: (m, s, n) whether the validation images were right, 0..1. A run whose
            loss became no number is at chance on every image.
        training: (m, s) accuracy on the batches of the last epoch as they were trained,
            likewise: what MATLAB shows. It is known after every epoch.
        diverged: (m, s) whether the loss became no number.
        classes: how many.
    """

    cells: dict[tuple[str, Arm], int]
    rows: dict[tuple[str, Arm, int], Mapping]
    correct: np.ndarray
    training: np.ndarray
    diverged: np.ndarray
    classes: int

    @property
    def val(self) -> np.ndarray:
        """(m, s) validation accuracy."""
        return self.correct.mean(axis=2)

    @property
    def gap(self) -> np.ndarray:
        """(m, s) accuracy on training images above that on validation images."""
        return self.training - self.val


def gather(
    design: Design,
    plan: Plan,
    results: pd.DataFrame,
    read_correct: ReadCorrect,
    *,
    seeds: int,
    layers: int,
    classes: int,
) -> Measured:
    """Collects what was trained; settings with an unfinished run are left out.

    Args:
        design: of the study.
        plan: whose requests the rows are of, in their order.
        results: as in results.csv.
        read_correct: of a trial after so many epochs.
        seeds: of each setting.
        layers: of the network.
        classes: of the data.
    """
    rows: dict[Point, Mapping] = dict(
        zip(plan.points, results.to_dict("records"), strict=True)
    )
    cells, found, correct, training, diverged = {}, {}, [], [], []
    for mode in MODES:
        for arm in design.arms:
            points = [design.point(mode, arm, seed, layers) for seed in range(seeds)]
            own = [rows[point] for point in points if point in rows]
            if len(own) < seeds:
                continue
            lost = [row["status"] == "diverged" for row in own]
            right = [
                np.float64(1 / classes)
                if gone
                else read_correct(row["trial"], row["epochs"])
                for row, gone in zip(own, lost, strict=True)
            ]
            if any(
                row["status"] not in ("done", "diverged") or one is None
                for row, one in zip(own, right, strict=True)
            ):
                continue
            cells[mode, arm] = len(cells)
            found |= {(mode, arm, seed): row for seed, row in enumerate(own)}
            correct.append(right)
            diverged.append(lost)
            training.append(
                [
                    1 / classes if gone else row["train_mode_accuracy"]
                    for row, gone in zip(own, lost, strict=True)
                ]
            )
    size = max((np.size(one) for own in correct for one in own), default=1)
    whole = [[np.broadcast_to(one, size) for one in own] for own in correct]
    return Measured(
        cells,
        found,
        np.array(whole, float).reshape(len(cells), seeds, size),
        np.array(training, float).reshape(len(cells), seeds),
        np.array(diverged, bool).reshape(len(cells), seeds),
        classes,
    )


def weigh(measured: Measured, *, gap: bool = False) -> Evidence:
    """Means and covariance of all settings, images and runs.

    Each mode has seed effects and run-to-run noise of its own.

    Args:
        measured: the runs.
        gap: of the gap between training and validation images; without, of the
            validation accuracy.
    """
    correct, seeds = measured.correct, measured.correct.shape[1]
    scores = correct.mean(axis=1)
    modes = np.array([[*MODES].index(mode) for mode, _ in measured.cells])
    flips = np.zeros(len(scores))
    if seeds > 1:
        flips = correct.var(axis=1, ddof=1).mean(axis=1) / correct.shape[2]
    if gap:
        scores = measured.training.mean(axis=1, keepdims=True) - scores
    return weigh_evidence(
        measured.gap if gap else measured.val,
        modes.astype(float),
        scores=scores,
        flips=flips,
        groups=modes,
    )
