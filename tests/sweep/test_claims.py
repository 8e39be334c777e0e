"""Commands that share a folder share its trials: locks that wait, die, freeze."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ftjax.machine.files import write_json
from ftjax.sweep import records, work_queue
from ftjax.sweep.claims import LOCK, Claims, Owner, read_owner
from ftjax.sweep.status import running_owner
from ftjax.sweep.work_queue import WorkQueue

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(out, trial):
    """Another process that trains a trial, as far as its files tell."""
    folder = records.trial_folder(out, trial)
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        own = Owner("here", process.pid, since=0.0, epochs=0)
        write_json(folder / "owner.json", own._asdict())
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_lock_of_a_process_that_dies_is_free(tmp_path):
    claims = Claims(tmp_path)
    with holder(tmp_path, "a") as process:
        assert claims.take("a") is None
        assert running_owner(tmp_path, "a").process == process.pid
    assert running_owner(tmp_path, "a") is None
    assert claims.take("a") == 1  # it died at this epoch
    claims.give_back("a")
    assert read_owner(tmp_path, "a") is None and claims.take("a") == 0
    claims.give_all_back()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_frozen_process_keeps_its_lock_until_it_dies(tmp_path):
    claims = Claims(tmp_path)
    with holder(tmp_path, "a") as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert claims.take("a") is None
        assert running_owner(tmp_path, "a") is not None
        assert claims.take("b") == 0  # others are free
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert claims.take("a") == 1
    claims.give_all_back()


def make_queue(out, names, told):
    """A queue of trials that are done once their record says so."""
    trials = [
        SimpleNamespace(
            id=name,
            placement=SimpleNamespace(boundary=0),
            hyper=SimpleNamespace(view_set=None),
        )
        for name in names
    ]
    return WorkQueue(
        iter([((trial,), 1) for trial in trials]),
        lambda: SimpleNamespace(at=lambda placement, views: None),
        lambda: None,
        dict.fromkeys(names, ""),
        out=out,
        listen=lambda event: told.append((event.trial.id, event.status)),
        count=2,
        take=lambda trials, last: True,
    )


def test_commands_that_wait_for_each_other_let_go_what_has_ended(tmp_path, monkeypatch):
    """Of two, each with a thread that waits for a trial of the other.

    That thread has the turn; the one that has ended a trial gave it back only once it
    had the turn, so that both commands waited for ever.
    """
    monkeypatch.setattr(work_queue, "POLL", 0.01)
    told, waiting = [], threading.Semaphore(0)
    monkeypatch.setattr(work_queue, "stop_point", waiting.release)
    queues = [make_queue(tmp_path, names, told) for names in ("ab", "ba")]

    def train_all(queue):
        for work in queue:
            assert waiting.acquire(timeout=20)  # until the others wait
            assert waiting.acquire(timeout=20)
            for trial in work.trials:
                records.write_trial(
                    tmp_path, trial.id, canonical={}, status="done", epochs=[{}]
                )

    threads = []
    for queue in (*queues, *queues):  # the first two take a trial, the others wait
        threads.append(threading.Thread(target=train_all, args=[queue], daemon=True))
        threads[-1].start()
        while len(told) < min(len(threads), 2):
            threads[-1].join(0.01)
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(told[:2]) == [("a", "started"), ("b", "started")]
    assert {("a", "kept"), ("b", "kept")} <= {*told}
    assert not list(tmp_path.glob("trials/*/owner.json"))
