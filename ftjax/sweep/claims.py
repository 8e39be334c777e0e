"""Who trains a trial: commands that share a run's folder share its work.

Each trial has a lock, which ends with the process that holds it, however that ends. The
folder must be on a file system whose locks all machines see (NFS, Lustre, GPFS do).
"""

import os
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ftjax.machine.files import Damaged, read_json, write_json
from ftjax.sweep.checkpoint import newest_step
from ftjax.sweep.records import set_aside_damaged, trial_folder

LOCK, OWNER = "lock", "owner.json"
DEATHS = 2  # of a process at one epoch of a trial, after which the trial is to blame


class Owner(NamedTuple):
    """Who trains a trial, or did until its process died.

    Attributes:
        host: name of the machine.
        process: its number there.
        since: when it began, in seconds since 1970.
        epochs: that the trial had then.
        deaths: processes that died at this epoch before.
    """

    host: str
    process: int
    since: float
    epochs: int
    deaths: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Claims:
    """The trials of a run that this command holds.

    Args:
        out: the run's folder.
    """

    def __init__(self, out: Path):
        self._out = out
        self._locks: dict[str, FileLock] = {}

    def take(self, trial: str) -> int | None:
        """Takes a trial, unless another command has it.

        Returns:
            How many processes died at the epoch it has come to; None if it is taken.

        Raises:
            OSError: the folder cannot be written.
        """
        lock = try_lock(self._out, trial)
        if lock is None:
            return None
        self._locks[trial] = lock
        folder = trial_folder(self._out, trial)
        before, epochs = (
            read_owner(self._out, trial),
            newest_step(folder / "checkpoint"),
        )
        deaths = 0
        if before is not None:  # who ends in order takes its name away
            deaths = 1 + (before.deaths if before.epochs == epochs else 0)
        own = Owner(socket.gethostname(), os.getpid(), time.time(), epochs, deaths)
        write_json(folder / OWNER, own._asdict())
        return deaths

    def give_back(self, trial: str) -> None:
        """Lets others have a trial; nothing if it is not held."""
        lock = self._locks.pop(trial, None)
        if lock is not None:
            (trial_folder(self._out, trial) / OWNER).unlink(missing_ok=True)
            lock.release()

    def give_all_back(self) -> None:
        """Likewise for all that are held."""
        for trial in list(self._locks):
            self.give_back(trial)


def try_lock(out: Path, trial: str) -> FileLock | None:
    """The lock of a trial, held; None if another holds it."""
    folder = trial_folder(out, trial)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def set_damaged_aside(out: Path, trial: str) -> str:
    """`records.set_aside_damaged`, unless another command is writing the trial."""
    if not trial_folder(out, trial).exists():
        return ""
    lock = try_lock(out, trial)
    if lock is None:
        return ""
    try:
        return set_aside_damaged(out, trial)
    finally:
        lock.release()


def read_owner(out: Path, trial: str) -> Owner | None:
    """Who trains a trial, or died at it; None if nobody, or nobody says so."""
    try:
        found: Any = read_json(trial_folder(out, trial) / OWNER)
        return None if found is None else Owner(**found)
    except (Damaged, TypeError):
        return None
