"""A plan in equal parts, for several machines: `--shard 0/4` to `--shard 3/4`."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ftjax.sweep.trial import Trial

AUTO = "auto"


class Shard(NamedTuple):
    """One of the parts of a plan.

    Attributes:
        index: which one, counted from 0.
        count: how many there are.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, trials: Sequence[Trial], goals: Mapping[str, int]) -> set[str]:
        """The ids of this part: neighbors in the plan, of about equal work.

        Neighbors share cuts, so that each part passes the frozen layers once, and only
        up to its own last cut.

        Args:
            trials: in the order of the plan.
            goals: trial -> number of epochs it is trained to; others are of no part.
        """
        going = [trial for trial in trials if trial.id in goals]
        work = [trial.flops.total(goals[trial.id]) for trial in going]
        whole, before, own = sum(work) or 1.0, 0.0, set()
        for trial, flops in zip(going, work, strict=True):
            middle = (before + flops / 2) / whole
            if min(int(middle * self.count), self.count - 1) == self.index:
                own.add(trial.id)
            before += flops
        return own


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """A part from `i/n`, or from what Slurm or Kubernetes says of this task.

    Args:
        text: `i/n`; `auto` in a Slurm job array; `auto/n` also in an Indexed Job of
            Kubernetes, which does not say how many there are. None: the whole.
        environment: variables of the process.

    Raises:
        ValueError: it is none of these, or there is no such task.
    """
    if text is None:
        return Shard(0, 1)
    index, slash, count = text.partition("/")
    if index == AUTO:
        index = _index(environment)
        count = count if slash else environment.get("SLURM_ARRAY_TASK_COUNT", "")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(
            f"--shard {text} must be i/n with i from 0 to n - 1; auto in a Slurm job "
            "array, auto/n in an Indexed Job of Kubernetes"
        )
    return Shard(int(index), int(count))


def _index(environment: Mapping[str, str]) -> str:
    """The number of this task, from 0, as text; empty if nothing says so."""
    task = environment.get("SLURM_ARRAY_TASK_ID")
    if task is None:
        return environment.get("JOB_COMPLETION_INDEX", "")
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    return str((int(task) - first) // int(environment.get("SLURM_ARRAY_TASK_STEP", 1)))
