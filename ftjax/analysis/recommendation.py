"""What is recommended, as one value: the sentence, the page and the files read it."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ftjax.analysis.fits import QuadraticFit
from ftjax.analysis.variance import Effects


@dataclass(frozen=True)
class Recommendation:
    """The recommended depth with its uncertainty, conditions, costs and reasons.

    Attributes:
        depth_layers: how many layers to unfreeze.
        depth_units: the same in blocks, None where the table does not say.
        total_layers: of the network.
        total_units: of the network, None where the table does not say.
        depth_percent: share of the layers to unfreeze, 0..100.
        bn: policy of the best curve.
        val_accuracy: mean of the metric at the named depth, as measured.
        interval_layers: ends of the set `not_worse`, or of a search's interval; None
            with a single depth.
        not_worse: the depths of this policy that are not shown to be worse than the
            best, by more than epsilon where one is given.
        smallest: the shallowest of these.
        pareto: depths that no other beats in accuracy and in every known cost.
        interior_optimum: both ends are shown to be worse than the best, by two seeds or
            more.
        quadratic: parabola by policy, None with fewer than three depths.
        sentence: the answer in plain words: the caveats, then the parts.
        explanation: sentences about causes.
        warnings: sentences.
        metric: what is compared; all values of it are higher-is-better (the log loss
            with its sign turned).
        baseline: the metric of always answering the majority.
        expected: `val_accuracy` corrected for the choice; None after a search over
            depths.
        expected_interval: of `expected`, with 95 %.
        confidence: of the set `not_worse`, None where no run was replicated: then its
            run-to-run noise is assumed, not measured.
        interval_source: as `noise_source`, or 'search'.
        noise_source: what was measured of the noise: 'images and seeds', 'images',
            'binomial', 'none', ...
        scope: what the set is about, '' for all tested depths.
        seeds: fewest and most runs of a depth in the set.
        run_spread: standard deviation of a run, at the shallowest and the deepest
            tested depth.
        tested: depths.
        elsewhere: by name, the depths of the other curves that may be the best as well.
        epsilon: accuracy (0..1) that does not matter in practice, if one was given.
        shape: of `selection.curve_shape`, or 'chance'.
        full: difference of the deepest tested depth to the best, its paired standard
            error (points of 0..1) and its time as a multiple of the best's.
        losses: by tested depth of this policy, what it lacks to the named one, and the
            paired standard error of that (points of 0..1).
        policies: of `full`, for the best of every other curve.
        stopped: depths of this policy that a search stopped early; nothing is said of
            them.
        setting: values of the settings that vary in the table, of the best curve.
        conditions: that the answer holds under.
        caveats: what the sentence begins with.
        parts: sentences that it goes on with.
        left_out: what --budget had no time for, as of budget.json; empty without.
        effects: how much depth and every varied axis matter; None where none was
            varied.
    """

    depth_layers: int
    depth_units: int | None
    total_layers: int
    total_units: int | None
    depth_percent: float
    bn: str
    val_accuracy: float
    interval_layers: tuple[int, int] | None
    not_worse: tuple[int, ...]
    smallest: int
    pareto: tuple[int, ...]
    interior_optimum: bool
    quadratic: dict[str, QuadraticFit | None]
    sentence: str
    explanation: tuple[str, ...]
    warnings: tuple[str, ...]
    metric: str = "accuracy"
    baseline: float | None = None
    expected: float | None = None
    expected_interval: tuple[float, float] | None = None
    confidence: float | None = None
    interval_source: str = "none"
    noise_source: str = "none"
    scope: str = ""
    seeds: tuple[int, int] = (1, 1)
    run_spread: tuple[float, float] = (0.0, 0.0)
    tested: tuple[int, ...] = ()
    elsewhere: dict[str, tuple[int, ...]] = field(default_factory=dict)
    epsilon: float | None = None
    shape: str = "unproven"
    full: dict[str, float] = field(default_factory=dict)
    losses: dict[int, tuple[float, float]] = field(default_factory=dict)
    policies: dict[str, dict[str, float]] = field(default_factory=dict)
    stopped: tuple[int, ...] = ()
    setting: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    left_out: dict[str, Any] = field(default_factory=dict)
    effects: Effects | None = None

    @property
    def named(self) -> "Recommendation | None":
        """What images mark: itself, or None if no depth can be recommended."""
        return None if self.shape == "chance" else self

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump: lists for arrays, None for nan and infinity."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
