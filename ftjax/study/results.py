"""The runs of the study as its figures show them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.evidence import Evidence
from ftjax.study.measured import Measured
from ftjax.study.points import MODES, Arm, Design, Sweep

ReadSteps = Callable[[str], np.ndarray | None]


class Study(NamedTuple):
    """What the figures show.

    Attributes:
        design: of the study.
        measured: its runs.
        evidence: means and covariance of validation accuracy.
        epochs: as in epochs.csv.
        read_steps: of a trial, (steps, 2) loss and accuracy of each training step.
        moved: of `movement.layer_changes`.
    """

    design: Design
    measured: Measured
    evidence: Evidence
    epochs: pd.DataFrame
    read_steps: ReadSteps
    moved: pd.DataFrame

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.measured.classes

    def cells(self, mode: str, sweep: Sweep) -> tuple[list[int], list[int]]:
        """Places along a sweep that were trained, and their cells."""
        found = [
            (place, self.measured.cells[mode, arm])
            for place, arm in enumerate(sweep.arms)
            if (mode, arm) in self.measured.cells
        ]
        return [place for place, _ in found], [cell for _, cell in found]

    @property
    def modes(self) -> tuple[str, ...]:
        """Those that have a finished setting."""
        return tuple(
            m for m in MODES if any(m == own for own, _ in self.measured.cells)
        )

    def curve(self, mode: str, arm: Arm, column: str) -> np.ndarray:
        """A column of epochs.csv, (epochs,), its mean over the seeds."""
        own = []
        for seed in range(self.measured.correct.shape[1]):
            row = self.measured.rows.get((mode, arm, seed))
            if row is None or row["status"] != "done":
                return np.empty(0)
            table = self.epochs[self.epochs["trial"] == row["trial"]]
            table = table.drop_duplicates("epoch").sort_values("epoch")
            own.append(table[column].to_numpy(float)[: row["epochs"]])
        return np.mean(own, axis=0)

    def step_curve(self, mode: str, arm: Arm) -> np.ndarray | None:
        """(steps, 2) loss and accuracy of each training step, means over the seeds."""
        own = []
        for seed in range(self.measured.correct.shape[1]):
            row = self.measured.rows.get((mode, arm, seed))
            if row is None or row["status"] != "done":
                return None
            steps = self.read_steps(row["trial"])
            if steps is None:
                return None
            count = row["epochs"] * (row["train_size"] // row["batch_size"])
            own.append(steps[:count])
        return np.mean(own, axis=0)
