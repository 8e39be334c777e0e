"""A plan in equal parts."""

from types import SimpleNamespace

import pytest

from ftjax.sweep.cost import Flops
from ftjax.sweep.shards import Shard, parse_shard

SLURM = {
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
}


@pytest.mark.parametrize(
    "text, environment, expected",
    [
        (None, SLURM, (0, 1)),  # an array of other commands is no array of shards
        ("0/1", {}, (0, 1)),
        ("3/4", SLURM, (3, 4)),
        ("auto", SLURM, (2, 4)),
        ("auto/8", SLURM, (2, 8)),
        ("auto/4", {"JOB_COMPLETION_INDEX": "3"}, (3, 4)),
    ],
)
def test_which_shard(text, environment, expected):
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    "text, environment",
    [
        ("4/4", {}),
        ("-1/4", {}),
        ("1", {}),
        ("1/", {}),
        ("auto", {}),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}),  # of how many?
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}),
    ],
)
def test_what_is_no_shard(text, environment):
    with pytest.raises(ValueError, match=f"--shard {text} must be i/n"):
        parse_shard(text, environment)


def test_shards_are_neighbors_of_about_equal_work_and_together_all():
    work = [40, 30, 10, 20, 10, 10]
    trials = [
        SimpleNamespace(id=str(number), flops=Flops(flops, 0))
        for number, flops in enumerate(work)
    ]
    goals = {trial.id: 2 for trial in trials}
    parts = [Shard(index, 3).of(trials, goals) for index in range(3)]
    assert parts == [{"0"}, {"1", "2"}, {"3", "4", "5"}]
    rest = {"3": 1, "4": 1}
    assert Shard(0, 2).of(trials, rest) == {"3"}
    assert Shard(0, 1).of(trials, rest) == {"3", "4"}
    assert set().union(*(Shard(i, 9).of(trials, goals) for i in range(9))) == set(goals)
