"""The command on `tiny` in a process of its own, and what it left compared."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from tiny_run import TINY, table, without

from ftjax.sweep import records

ROOT = Path(__file__).parents[1]


def start(images, out, *words, env=None):
    """The command as a process, which ends with its group."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep"]
        + [*without(TINY, words), "--data", str(images), "--out", str(out), *words],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def finish(process, code=0):
    """Waits for its end; what it said on standard error."""
    try:
        _, said = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == code, said
    return said


def wait_until(seen, process):
    """What `seen` finds, once it finds something."""
    deadline = time.monotonic() + 300
    while not (found := seen()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def owners(out):
    """The processes that train a trial."""
    found = []
    for path in out.glob("trials/*/owner.json"):
        with suppress(FileNotFoundError):  # it has just ended
            found.append(json.loads(path.read_text())["process"])
    return found


def assert_same_run(out, whole):
    """Tables and logits are equal, bit for bit."""
    for name in ("results.csv", "epochs.csv"):
        own, other = (table(folder, name) for folder in (out, whole))
        pd.testing.assert_frame_equal(own, other, check_exact=True)
    for trial in table(whole).trial:
        own, other = (records.read_logits(folder, trial) for folder in (out, whole))
        np.testing.assert_array_equal(own, other)
