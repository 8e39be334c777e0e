"""When trials side by side get a core each, and that a command then does so."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, rounding
from tiny_sweep import tiny_sweep

from ftjax.sweep import cores
from ftjax.sweep.cores import one_core_each, pays, unevenness


def make_sweep(tmp_path, **options):
    usual = {"depths": ("0", "5", "10"), "bn": ("follow",), "seeds": 2}
    return tiny_sweep(tmp_path, **(usual | options))


@pytest.fixture
def two_cores(monkeypatch):
    """Two cores, and nobody who has chosen the number of threads."""
    monkeypatch.delenv(cores.POOL_SIZE, raising=False)
    for module in ("cores", "resources"):
        monkeypatch.setattr(f"ftjax.sweep.{module}.usable_cores", lambda: 2)


def test_unevenness_is_the_last_end_over_the_mean_end():
    assert unevenness([5], 1) == 1
    assert unevenness([4, 3, 3, 2], 2) == 1  # 4 and 2, 3 and 3
    assert unevenness([6, 1, 1], 2) == 1.5  # 6 alone, of 4 on average
    assert unevenness([2, 2, 2], 3) == 1


def test_it_pays_where_all_cores_have_work_to_the_end(tmp_path, two_cores):
    assert pays(make_sweep(tmp_path))
    assert not pays(make_sweep(tmp_path, depths=("10",), seeds=1))  # one trial
    assert not pays(make_sweep(tmp_path, depths=("5",), seeds=3))  # one is left alone
    assert not pays(make_sweep(tmp_path, trials_at_once=1))


def test_searches_that_end_with_few_trainings_share_the_cores(tmp_path, two_cores):
    assert not pays(make_sweep(tmp_path, depths=("auto",)))
    assert not pays(make_sweep(tmp_path, search="halving"))


def test_who_has_chosen_the_number_of_threads_keeps_it(
    tmp_path, two_cores, monkeypatch
):
    monkeypatch.setenv(cores.POOL_SIZE, "2")
    sweep = make_sweep(tmp_path)
    assert not pays(sweep)
    assert one_core_each(sweep) is sweep


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores that a process can be bound to",
)
def test_a_command_gives_each_training_a_core_and_the_same_answer(tmp_path):
    tables = []
    for name, arguments in (("each", []), ("shared", ["--trials-at-once", "1"])):
        options = "--model tiny --weights random --image-size 16 --depths 0 5 10 "
        options += "--train-size 96 --val-size 32 --epochs 1 --seeds 2 --bn follow "
        options += "--lr 1e-4"
        code = (
            "import os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))"
            "[:2]); from experiments import sweep; from ftjax.cli import answer; "
            "answer.write_answer = lambda *_: 0; "
            "code = sweep.main(); print('threads', os.environ.get('NPROC')); "
            "sys.exit(code)"
        )
        out = tmp_path / name
        found = subprocess.run(
            [sys.executable, "-c", code, *options.split(), *arguments, "--out", out],
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if k != cores.POOL_SIZE},
        )
        assert found.returncode == 0, found.stderr
        assert f"threads {1 if name == 'each' else None}\n" in found.stdout
        tables.append(pd.read_csv(out / "results.csv"))
    each, shared = tables
    assert each["frozen_intact"].all()
    same = ["depth_layers", "seed"]
    pd.testing.assert_frame_equal(each[same], shared[same])
    bound = rounding(TINY_LAYERS * 32 * 16 * 16)  # sums over the pixels of a batch
    np.testing.assert_allclose(each["val_loss"], shared["val_loss"], rtol=bound)
    # At most one image lies so near to the border of two classes.
    right = [table["val_accuracy"] for table in tables]
    np.testing.assert_allclose(*right, atol=1 / 32)
