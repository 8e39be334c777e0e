"""What happens in a sweep, for those who listen."""

from collections.abc import Callable
from typing import NamedTuple

from ftjax.sweep.trial import Trial


class Epoch(NamedTuple):
    """One epoch's numbers.

    Attributes:
        epoch: counted from 1.
        accuracy: on the training set, in evaluation mode; not a number but in the last
            epoch that was asked for.
        loss: likewise, in nats.
        val_accuracy: on the validation set, in evaluation mode.
        val_loss: likewise.
        train_mode_accuracy: mean over the epoch's batches as they were trained.
        train_mode_loss: likewise.
        steps: optimizer steps.
        seconds: wall time, compilation included; of trials that are trained at once
            or side by side, an equal share.
    """

    epoch: int
    accuracy: float
    loss: float
    val_accuracy: float
    val_loss: float
    train_mode_accuracy: float
    train_mode_loss: float
    steps: int
    seconds: float


class Event(NamedTuple):
    """Something that happened to a trial.

    Attributes:
        trial: which one.
        status: `kept` (it was done before), `damaged` (what was kept of it is not what
            was written, and is set aside), `elsewhere` (another command trains it,
            which is waited for), `again` (it ran out of memory, and is trained again
            in smaller parts), `started`, `epoch`, `done`, `failed`, or `diverged`
            (its loss is no number, or beyond all reason).
        epoch: its numbers, where an epoch has ended.
        message: why it failed or diverged, by which rule it ended early, what was
            damaged, or who trains it.
    """

    trial: Trial
    status: str
    epoch: Epoch | None = None
    message: str = ""


ENDED_BADLY = ("failed", "diverged")

Listener = Callable[[Event], None]
