"""A long sweep needs no more memory than a short one."""

import os
from pathlib import Path

import pytest
from tiny_sweep import tiny_sweep

from ftjax.sweep.run import run

TRIALS = 200


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_two_hundred_trials_need_the_memory_of_twenty(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="needs the extra demo")
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    sweep = tiny_sweep(
        tmp_path / "run",
        image_size=16,
        depths=("0", "7", "18", "19"),
        bn=("follow",),
        seeds=TRIALS // 4,
    )
    assert len(sweep.plan().trials) == TRIALS
    sizes = []

    def listen(event):
        assert event.status != "failed", event.message
        if event.status == "done":
            sizes.append(resident_bytes())

    run(sweep, tmp_path / "run", listen)
    # trials come by cut, so all programs are there only when the last cut has begun
    assert sizes[-1] / sizes[19] < 1.05
