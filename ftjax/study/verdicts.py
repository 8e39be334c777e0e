"""What we measure of each claim of the paper, and its verdict.

A claim is supported where the 95 % interval of its contrast lies in the region that the
paper says, contradicted where it lies outside, and not resolved where it lies on both
sides. It is not tested where its settings were not trained, or where it speaks of a
level and the base has fewer updates than the paper's.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.study.claims import Claim, make_claims
from ftjax.study.measured import Measured, weigh
from ftjax.study.points import MODES, WHOLE, Design
from ftjax.study.spans import axis_spans

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not resolved"
UNTESTED = "not tested"
PAPER_UPDATES = 300  # of its base: 2,000 images in batches of 128, 20 epochs
Z = NormalDist().inv_cdf(0.975)
UNCHANGED = 0.1  # of the norm of a layer's weights: "changed a little"
STOP = 0.995  # accuracy on training images at which the paper stops
COLUMNS = (
    "figure mode statement contrast asserted difference stderr low high verdict".split()
)


class Finding(NamedTuple):
    """What was measured of a claim in one mode; accuracies 0..1, nan where unknown."""

    claim: Claim
    mode: str
    difference: float
    stderr: float
    verdict: str

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the difference."""
        half = Z * self.stderr
        return self.difference - half, self.difference + half


def judge(difference: float, stderr: float, region: tuple[float, float]) -> str:
    """The verdict on a claim that a difference lies in a region.

    Args:
        difference: as measured.
        stderr: of it.
        region: lower and upper end.
    """
    if not math.isfinite(difference) or not math.isfinite(stderr):
        return UNTESTED
    low, high = difference - Z * stderr, difference + Z * stderr
    if region[0] < low and high < region[1]:
        return SUPPORTED
    if high <= region[0] or region[1] <= low:
        return CONTRADICTED
    return OPEN


def conclude(
    claim: Claim, mode: str, difference: float, stderr: float, design: Design
) -> Finding:
    """A claim with what was measured of it, and its verdict."""
    verdict = judge(difference, stderr, claim.region)
    if claim.level and design.updates < PAPER_UPDATES:
        verdict = UNTESTED
    return Finding(claim, mode, difference, stderr, verdict)


def judge_all(design: Design, measured: Measured) -> list[Finding]:
    """Every claim in both modes; some are not tested."""
    accuracy, gap = weigh(measured), weigh(measured, gap=True)
    found = []
    for claim in make_claims(design):
        for mode in MODES:
            evidence = gap if claim.gap else accuracy
            weights = np.zeros(len(evidence.means))
            known = bool(claim.weights)
            for arm, weight in claim.weights.items():
                index = measured.cells.get((mode, arm))
                if index is None:
                    known = False
                else:
                    weights[index] = weight
            target = 1 / measured.classes if claim.target == "chance" else claim.target
            difference = stderr = math.nan
            if known:
                difference = float(weights @ evidence.means) - target
                stderr = float(np.sqrt(weights @ evidence.covariance @ weights))
            found.append(conclude(claim, mode, difference, stderr, design))
    return [*found, *judge_rate(design, measured), *judge_best(design, measured)]


def judge_rate(design: Design, measured: Measured) -> Iterator[Finding]:
    """Whether the rate matters more than what comes next, by best minus worst value."""
    evidence = weigh(measured)
    for mode in MODES:
        spans = axis_spans(design, measured, mode)
        claim = Claim(
            "7",
            "the initial learning rate is the most important hyper-parameter",
            "best less worst value of the rate, less the same of the next axis",
        )
        others = [span for span in spans if span.name != "rate"]
        rate = [span for span in spans if span.name == "rate"]
        if not rate or not others:
            yield Finding(claim, mode, math.nan, math.nan, UNTESTED)
            continue
        weights = rate[0].weights - others[0].weights
        difference = float(weights @ evidence.means)
        stderr = float(np.sqrt(weights @ evidence.covariance @ weights))
        yield conclude(claim, mode, difference, stderr, design)


def judge_best(design: Design, measured: Measured) -> Iterator[Finding]:
    """Whether any setting is above 85 %."""
    evidence = weigh(measured)
    claim = Claim(
        "all",
        "over 85 % in specific cases",
        "accuracy of the best setting, less 85 %",
        target=0.85,
        level=True,
    )
    for mode in MODES:
        own = [index for (of, _), index in measured.cells.items() if of == mode]
        if not own:
            yield Finding(claim, mode, math.nan, math.nan, UNTESTED)
            continue
        best = max(own, key=lambda index: evidence.means[index])
        difference = float(evidence.means[best]) - 0.85
        stderr = math.sqrt(evidence.covariance[best, best])
        yield conclude(claim, mode, difference, stderr, design)


def judge_stops(
    design: Design, measured: Measured, epochs: pd.DataFrame
) -> Iterator[Finding]:
    """Whether training reaches 99.5 % for the two smallest batches alone.

    The difference is the share of runs that do, with small batches less with others.

    Args:
        design: of the study.
        measured: the runs.
        epochs: as in epochs.csv.
    """
    claim = Claim(
        "9",
        "training stops at 99.5 % for batches of 8 and 16 (and for no others)",
        "share of runs that reach 99.5 % on training batches: batches of 16 and less, "
        "less larger ones",
        region=(0.5, math.inf),
        unit="%",
    )
    highest = epochs.groupby("trial")["train_mode_accuracy"].max()
    for mode in MODES:
        reached: dict[bool, list[bool]] = {True: [], False: []}
        for size in design.batches:
            arm = design.arm(batch_size=size)
            seeds = range(measured.correct.shape[1])
            own = [measured.rows.get((mode, arm, seed)) for seed in seeds]
            reached[size <= 16] += [
                bool(highest.get(row["trial"], 0) >= STOP) for row in own if row
            ]
        if not all(reached.values()):
            yield Finding(claim, mode, math.nan, math.nan, UNTESTED)
            continue
        shares = [np.mean(reached[small]) for small in (True, False)]
        variance = sum(
            share * (1 - share) / len(own)
            for share, own in zip(shares, (reached[True], reached[False]), strict=True)
        )
        difference, stderr = float(shares[0] - shares[1]), math.sqrt(variance)
        yield conclude(claim, mode, difference, stderr, design)


def judge_movement(moved: pd.DataFrame) -> Finding:
    """Whether the layers that most weights lie in changed a little.

    Args:
        moved: of `movement.layer_changes`, at the base.
    """
    claim = Claim(
        "protocol",
        "pretty much unchanged or changed a little (layers below the last)",
        "largest change of a block's weights, as a share of their norm",
        region=(-math.inf, UNCHANGED),
        unit="%",
    )
    if moved.empty:
        return Finding(claim, WHOLE, math.nan, math.nan, UNTESTED)
    largest = moved.groupby("seed")["change"].max()
    stderr = float(largest.std() / math.sqrt(len(largest))) if len(largest) > 1 else 0.0
    difference = float(largest.mean())
    return Finding(
        claim, WHOLE, difference, stderr, judge(difference, stderr, (claim.region))
    )


def claims_table(findings: list[Finding]) -> pd.DataFrame:
    """The rows of claims.csv; differences 0..1."""
    rows = []
    for finding in findings:
        claim, (low, high) = finding.claim, finding.interval
        own = finding.difference, finding.stderr, low, high
        rows.append(
            (
                claim.figure,
                MODES[finding.mode],
                claim.statement,
                claim.contrast,
                say_region(claim.region, claim.unit),
                *(round(value, 5) + 0.0 for value in own),  # no -0.0
                finding.verdict,
            )
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def say_region(region: tuple[float, float], unit: str = "points") -> str:
    """E.g. `above 0`, `within 2 points of 0`, `0 to 2 points`."""
    low, high = (100 * end for end in region)
    if math.isinf(high):
        return f"above {low:g} {unit}" if low else "above 0"
    if math.isinf(low):
        return f"below {high:g} {unit}"
    if low == -high:
        return f"within {high:g} {unit} of 0"
    return f"{low:g} to {high:g} {unit}"
