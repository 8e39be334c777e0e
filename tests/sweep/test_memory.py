"""A long sweep needs no more memory than a short one."""

import os
from pathlib import Path

import pytest
from tiny_setup import tiny_setup

from ftjax.sweep import run as sweep

TRIALS = 200


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_two_hundred_trials_need_the_memory_of_twenty(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="needs the extra demo")
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    setup = tiny_setup(
        tmp_path / "run",
        image_size=16,
        depths=("0", "7", "18", "19"),
        bn=("follow",),
        seeds=TRIALS // 4,
    )
    assert len(setup.plan.trials) == TRIALS
    sizes = []
    for event in sweep.run(setup, tmp_path / "run"):
        assert event.status != "failed", event.message
        if event.status == "done":
            sizes.append(resident_bytes())
    # trials come by cut, so all programs are there only when the last cut has begun
    assert sizes[-1] / sizes[19] < 1.05
