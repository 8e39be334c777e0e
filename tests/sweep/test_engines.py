"""Workers elsewhere: on a local Ray cluster, as local jobs of submitit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import TINY, run, table

from ftjax.sweep import records

WORDS = "--depths 0 7 18 19 --bn follow frozen --epochs 150".split()
WORKERS = "--workers", "2"


@pytest.mark.parametrize(
    "words, message",
    [
        ("--workers 2", "--workers and --job are of --engine ray and submitit"),
        ("--engine ray --shard 0/2", "--engine ray deals out the shards itself"),
        ("--engine ray", "--engine ray is not installed: pip install 'ftjax[ray]'"),
    ],
)
def test_what_goes_with_no_engine(
    words, message, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("ftjax.sweep.engines.find_spec", lambda name: None)
    assert run(images, tmp_path, "--depths", "0", *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def start(images, out, *more):
    """The command in a process of its own, which ends with its group."""
    words = [*TINY, "--data", str(images), "--out", str(out), *WORDS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *words],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def wait_for_owner(out, process):
    """The process that trains a trial, once one does."""
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline
        for path in out.glob("trials/*/owner.json"):
            try:
                return json.loads(path.read_text())["process"]
            except FileNotFoundError:
                continue  # it has just ended
        time.sleep(0.05)
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """The same by a single process."""
    out = tmp_path_factory.mktemp("whole")
    finish(start(images, out))
    return out


def finish(process):
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "submitit"])
def test_a_killed_worker_and_a_killed_driver_change_nothing(
    engine, whole, images, tmp_path
):
    pytest.importorskip(engine)
    driver = start(images, tmp_path, "--engine", engine, *WORKERS)
    os.kill(wait_for_owner(tmp_path, driver), signal.SIGKILL)
    while not list(tmp_path.glob("trials/*/val_correct.npy")):
        assert driver.poll() is None
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    driver = start(images, tmp_path, "--engine", engine, *WORKERS)
    _, said = driver.communicate(timeout=900)
    if "its process died 2 times" in said:  # both were at the same epoch of it
        finish(start(images, tmp_path, "--engine", engine, *WORKERS))
    else:
        assert driver.returncode == 0, said
    for name in ("results.csv", "epochs.csv"):
        own, other = (table(out, name) for out in (tmp_path, whole))
        pd.testing.assert_frame_equal(own, other, check_exact=True)
    for trial in table(whole).trial:
        own, other = (records.read_logits(out, trial) for out in (tmp_path, whole))
        np.testing.assert_array_equal(own, other)
