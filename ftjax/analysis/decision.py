"""What a search over depths decides to train next."""

from typing import NamedTuple


class Placement(NamedTuple):
    """One trial to run; the rate is None where the search is over depths alone."""

    depth_layers: int
    bn: str
    seed: int
    lr: float | None = None


class Decision(NamedTuple):
    """What to do next.

    Attributes:
        trials: to be run now; empty when done.
        done: whether the search is over.
        reason: in plain words.
        best: depth and policy with the highest expected accuracy among those that were
            trained, None before there is one.
        interval: of the best depth on that policy's curve, in layers, with MASS of the
            posterior.
        gain: expected rise of the best accuracy by one more trial.
        regret: expected accuracy that the best trained depth lacks to the best of all.
        noise: standard deviation of one trial.
    """

    trials: tuple[Placement, ...]
    done: bool
    reason: str
    best: tuple[int, str] | None = None
    interval: tuple[int, int] | None = None
    gain: float = float("nan")
    regret: float = float("nan")
    noise: float = float("nan")

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths of the trials, without repeats."""
        return tuple(sorted({trial.depth_layers for trial in self.trials}))
