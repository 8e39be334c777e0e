"""What is recommended, as one value: the sentence, the page and the files read it."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ftjax.analysis.fits import QuadraticFit


@dataclass(frozen=True)
class Recommendation:
    """The recommended depth with its uncertainty, conditions, costs and reasons.

    depth_layers, depth_units, depth_percent: how much to unfreeze, of total_layers /
    total_units (None where the table does not say). bn, setting: policy, and values of
    the settings that vary in the table, of the best curve.
    metric: what is compared; all values of it are higher-is-better (the log loss with
    its sign turned). val_accuracy: mean of the metric at the named depth, as measured.
    expected, expected_interval: the same corrected for the choice, with 95 %; None
    after a search over depths. baseline: the metric of always answering the majority.
    not_worse: the depths of this policy that are not shown to be worse than the best,
    by more than epsilon where one is given; interval_layers: their ends; smallest: the
    shallowest; elsewhere: the same of the other curves. confidence: of that set, None
    where no run was replicated: then its run-to-run noise is assumed, not measured.
    noise_source: what was measured of the noise: 'images and seeds', 'images',
    'binomial', 'none', ...; interval_source: the same, or 'search'.
    scope: what the set is about, '' for all tested depths. seeds: fewest and most runs
    of a depth in the set. run_spread: standard deviation of a run, at the shallowest
    and the deepest tested depth. tested: depths.
    pareto: depths that no other beats in accuracy and in every known cost.
    interior_optimum: both ends are shown to be worse than the best, by two seeds or
    more. shape: of `selection.curve_shape`, or 'chance'.
    full: difference of the deepest tested depth to the best, its paired standard error
    (points of 0..1) and its time as a multiple of the best's. policies: the same of the
    best of every other curve.
    quadratic: parabola by policy, None with fewer than three depths.
    stopped: depths of this policy that a search stopped early; nothing is said of them.
    conditions: that the answer holds under. caveats: what the sentence begins with.
    parts: its sentences. sentence, explanation, warnings: plain words.
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
    policies: dict[str, dict[str, float]] = field(default_factory=dict)
    stopped: tuple[int, ...] = ()
    setting: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

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
