"""The command on `tiny` in a forked process, in which something goes wrong.

The fork server has imported all, so that hundreds of processes take minutes.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import jax
from tiny_run import TINY

from ftjax import session  # noqa: F401  # imported before the fork
from ftjax.cli import answer, sweep
from ftjax.sweep import trials

CALLS = "replace rename mkdir fsync unlink open".split()  # of `os`, that write


def context():
    """Processes that begin with this module imported."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["fault_child"])
    return found


def train(images, out, words, said, *, kill_at=None, after=False, largest=None):
    """The command; every epoch is kept, and nothing is drawn.

    Args:
        images: the data.
        out: the run's folder.
        words: of the command line.
        said: file that its output goes to.
        kill_at: the call, of those that write below `out`, at which it kills itself.
        after: kills itself after the call, not before it.
        largest: bytes of a file; what is beyond fails as on a full disk.
    """
    os.setsid()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    trials.KEEP_EVERY = 0
    answer.write_answer = lambda *_: None
    if kill_at is not None:
        kill_in_calls(str(out), kill_at, after)
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    with open(said, "w") as file, contextlib.redirect_stdout(None):
        with contextlib.redirect_stderr(file):
            words = [*TINY, "--data", str(images), "--out", str(out), *words]
            code = sweep.main(words)
    os._exit(code)


def kill_in_calls(folder, kill_at, after):
    """Kills this process at a call that writes below a folder."""
    seen = []

    def counted(call):
        def replaced(path, *args, **kwargs):
            if not isinstance(path, int | str | os.PathLike):
                return call(path, *args, **kwargs)
            below = isinstance(path, int) or str(path).startswith(folder)
            seen.extend([path] * below)
            if len(seen) == kill_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = call(path, *args, **kwargs)
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return replaced

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def code_of(process):
    """How a process ended, by the shell's convention."""
    process.join(600)
    code = process.exitcode
    process.close()
    return code


def done_records(out):
    """The records of trials that are done, by trial."""
    found = {}
    for path in Path(out).glob("trials/*/trial.json"):
        content = path.read_bytes()
        if b'"status": "done"' in content:
            found[path.parent.name] = content
    return found
