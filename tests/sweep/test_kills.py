"""Processes killed at any moment, hundreds of them: nothing lost, nothing done twice.

Half are killed at a random time; half at a random call that writes: while a lock is
taken, a checkpoint, a record or a table is written. FTJAX_KILLS says how many.
"""

import os
import random
import shutil
import signal
import time

import pytest
from own_process import assert_same_run, owners

pytest.importorskip("resource", reason="needs POSIX")
import fault_child

pytestmark = pytest.mark.stress
WORDS = "--depths 0 7 18 19 --bn follow frozen --epochs 12".split()
KILLS = int(os.environ.get("FTJAX_KILLS", 500))
TRIES = 5  # of a command that nobody kills; two deaths at one epoch are a failure first


class Commands:
    """Starts the command on a folder, alone or several at once."""

    def __init__(self, images, tmp_path):
        self._images, self._said = images, tmp_path / "said"
        self._context = fault_child.context()

    def start(self, out, **faults):
        process = self._context.Process(
            target=fault_child.train,
            args=(self._images, out, WORDS, self._said),
            kwargs=faults,
        )
        process.start()
        return process

    def finish(self, out):
        for _ in range(TRIES):
            code = fault_child.code_of(self.start(out))
            if code == 0:
                return
            said = self._said.read_text()
            assert code == 1 and "its process died" in said, said
        raise AssertionError(said)


@pytest.mark.parametrize("at_once, share", [(1, 0.5), (2, 0.3), (4, 0.2)])
def test_kills(images, tmp_path, at_once, share):
    random.seed(at_once)
    commands = Commands(images, tmp_path)
    commands.finish(tmp_path / "whole")
    out, kills, runs = tmp_path / "out", 0, 0
    while kills < share * KILLS:
        before = fault_child.done_records(out)
        faults = [random_fault() for _ in range(at_once)]
        processes = [commands.start(out, **fault) for fault in faults]
        wait_for_work(out, processes)
        end = time.monotonic() + random.uniform(0, random.choice([1, 4, 16]))
        while any(p.is_alive() for p in processes) and time.monotonic() < end:
            time.sleep(0.01)
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
            kills += fault_child.code_of(process) == -signal.SIGKILL
        print(f"{kills} kills of {at_once} at once, {runs} runs", flush=True)
        after = fault_child.done_records(out)
        assert {trial: after.get(trial) for trial in before} == before
        if len(after) == 7:
            commands.finish(out)
            assert_same_run(out, tmp_path / "whole")
            assert not list(out.rglob("*.damaged-*"))
            shutil.rmtree(out)
            runs += 1
    if out.exists():
        commands.finish(out)
        assert_same_run(out, tmp_path / "whole")


def wait_for_work(out, processes):
    """Until one of them trains, or has ended."""
    ids = {process.pid for process in processes}
    while all(process.is_alive() for process in processes) and not ids & {*owners(out)}:
        time.sleep(0.01)


def random_fault():
    """Half of them die at a call that writes."""
    if random.random() < 0.5:
        return {}
    return {"kill_at": random.randrange(1, 500), "after": random.random() < 0.5}
