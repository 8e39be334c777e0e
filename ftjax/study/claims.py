"""The sentences of the paper with a number or a direction, and what we measure of each.

A claim says that a contrast of settings lies in a region. It is supported where the
95 % interval of the contrast lies in the region, contradicted where it lies outside,
and not resolved where it lies on both sides. It is not tested where its settings were
not trained, or where it speaks of a level and the base has fewer updates than the
paper's.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.axes import ALL, GLOROT, LINEAR
from ftjax.study.measured import Measured, weigh
from ftjax.study.points import (
    DEEP,
    HIDDEN,
    LARGE,
    MODES,
    SMALL,
    WHOLE,
    Arm,
    Design,
)

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not resolved"
UNTESTED = "not tested"
PAPER_UPDATES = 300  # of its base: 2,000 images in batches of 128, 20 epochs
Z = NormalDist().inv_cdf(0.975)
ABOVE = (0.0, math.inf)
LITTLE = 0.02  # points / 100: "a little", "negligible", no trend
NEARLY = 0.01  # below a level that is "nearly" reached
CHANCE = 0.05  # above chance that is still "no better than chance"
UNCHANGED = 0.1  # of the norm of a layer's weights: "changed a little"
STOP = 0.995  # accuracy on training images at which the paper stops
COLUMNS = (
    "figure mode statement contrast asserted difference stderr low high verdict".split()
)


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and the contrast that it speaks of.

    Attributes:
        figure: of the paper, or `control`.
        statement: what it says, in its words where they are short.
        contrast: the same as a difference that is measured.
        weights: of the settings in that difference.
        region: in which the paper says it lies, 0..1.
        target: that is subtracted: a level; `chance` for that of the data.
        gap: whether it is of the gap between training and validation images.
        level: whether it needs as many updates as the paper's.
        unit: of the difference: points of accuracy, or % of something else.
    """

    figure: str
    statement: str
    contrast: str
    weights: Mapping[Arm, float] = field(default_factory=dict)
    region: tuple[float, float] = ABOVE
    target: float | str = 0.0
    gap: bool = False
    level: bool = False
    unit: str = "points"


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


def make_claims(design: Design) -> tuple[Claim, ...]:
    """All claims that a contrast of accuracies can judge, in the paper's order."""
    return (
        *size_and_rate_claims(design),
        *l2_and_batch_claims(design),
        *epoch_and_factor_claims(design),
        *head_claims(design),
    )


def against(a: Arm, b: Arm) -> dict[Arm, float]:
    """The weights of a difference; empty where both are one setting."""
    return {} if a == b else {a: 1.0, b: -1.0}


def size_and_rate_claims(design: Design) -> Iterator[Claim]:
    """Figures 6 and 7."""
    base, least, most = Arm(), min(design.sizes), max(design.sizes)
    few = design.arm(train_size=least)
    yield Claim(
        "6",
        "with only a couple of thousands of images the accuracy is nearly 85 %",
        f"accuracy with {most} images, less 85 %",
        {base: 1.0},
        (-NEARLY, math.inf),
        0.85,
        level=True,
    )
    yield Claim(
        "6",
        "(accuracy over the number of training images) increasing",
        f"accuracy with {most} images, less that with {least}",
        against(base, few),
    )
    rates = {rate: design.arm(lr=rate) for rate in design.rates}
    for rate in (0.1, 0.01):
        yield Claim(
            "7a",
            "no better than chance",
            f"accuracy at rate {rate:g}, less chance",
            {rates[rate]: 1.0},
            (-math.inf, CHANCE),
            "chance",
        )
    for rate, words in ((1e-3, "1e-3"), (1e-4, "1e-4")):
        yield Claim(
            "7a",
            "best results with 0.001 and 0.0001; 0.00001 is too slow",
            f"accuracy at rate {words}, less that at 1e-5",
            against(rates[rate], rates[1e-5]),
        )
    yield Claim(
        "7b",
        "severe overfitting (at 0.001)",
        "gap between training and validation at rate 1e-3, less that at 1e-4",
        against(rates[1e-3], rates[1e-4]),
        gap=True,
    )
    yield Claim(
        "7b",
        "0.0001 is the better option",
        "accuracy at rate 1e-4, less that at 1e-3",
        against(rates[1e-4], rates[1e-3]),
    )


def l2_and_batch_claims(design: Design) -> Iterator[Claim]:
    """Figures 8 and 9."""
    most = max(design.l2)
    yield Claim(
        "8a",
        "0.0001 was a little bit better (than 0.0005, at batches of 128)",
        "accuracy at L2 1e-4, less that at 5e-4",
        against(design.arm(l2=1e-4), design.arm(l2=5e-4)),
        (0.0, LITTLE),
    )
    smaller = max(value for value in design.l2 if value < 1e-4)
    yield Claim(
        "8a",
        "after that the improvement was negligible",
        f"accuracy at L2 {smaller:g}, less that at 1e-4",
        against(design.arm(l2=smaller), design.arm(l2=1e-4)),
        (-math.inf, LITTLE),
    )
    yield Claim(
        "8b",
        "fluctuating (over L2, at batches of 32)",
        f"accuracy at L2 1e-4, less that at {most:g}, at batches of 32",
        against(
            design.arm(l2=1e-4, batch_size=SMALL), design.arm(l2=most, batch_size=SMALL)
        ),
        (-LITTLE, LITTLE),
    )
    small, large = (
        design.arm(batch_size=size)
        for size in (min(design.batches), max(design.batches))
    )
    sizes = f"{min(design.batches)}", f"{max(design.batches)}"
    yield Claim(
        "9",
        "more overfitting for smaller batches",
        f"gap between training and validation at batches of {sizes[0]}, less that at "
        f"{sizes[1]}",
        against(small, large),
        gap=True,
    )
    yield Claim(
        "9",
        "to reach the same accuracy larger batches must visit more data",
        f"accuracy at batches of {sizes[0]}, less that at {sizes[1]}, after equally "
        "many images",
        against(small, large),
    )
    yield Claim(
        "9",
        "(the size of a batch has) strictly computational meaning",
        f"accuracy at batches of {SMALL}, less that at {LARGE}, after equally many "
        "images",
        against(design.arm(batch_size=SMALL), design.arm(batch_size=LARGE)),
        (-LITTLE, LITTLE),
    )


def epoch_and_factor_claims(design: Design) -> Iterator[Claim]:
    """Figures 10 and 11."""
    usual, most = design.base["epochs"], max(design.epochs)
    yield Claim(
        "10",
        "over 83 % after a couple of tens of epochs",
        f"accuracy after {usual} epochs, less 83 %",
        {Arm(): 1.0},
        ABOVE,
        0.83,
        level=True,
    )
    yield Claim(
        "10",
        "hundreds of epochs are unnecessary",
        f"accuracy after {most} epochs, less that after {usual}",
        against(design.arm(epochs=most), Arm()),
        (-math.inf, LITTLE),
        level=True,
    )
    for low, high in itertools.pairwise(design.factors):
        yield Claim(
            "11",
            "the accuracy grows with the factors of the last layer",
            f"accuracy at factor {high[0]:g}, less that at {low[0]:g}",
            against(design.factor_arm(*high), design.factor_arm(*low)),
        )


def head_claims(design: Design) -> Iterator[Claim]:
    """Figure 12, and the controls that it lacks."""
    one = {"head_lr_factor": 1.0, "head_bias_lr_factor": 1.0}
    kinds = {
        "12a": ("factors 10 and 20 on the last layer", {}),
        "12b": ("factors 1 and 1", one),
        "control: factors": (
            "factors 10 and 20 on all new layers",
            {"head_lr_layers": ALL},
        ),
        "control: start": (
            "factors 10 and 20 on the last layer, Glorot start",
            {"head_init": GLOROT},
        ),
    }
    for figure, (words, fixed) in kinds.items():
        for shallow, deep, names in (
            (LINEAR, HIDDEN, "5, less that of 75-5"),
            (HIDDEN, DEEP, "75-5, less that of 500-75-5"),
        ):
            yield Claim(
                figure,
                "deeper heads have worse accuracy",
                f"accuracy of head {names}; {words}",
                against(
                    design.arm(head=shallow, **fixed), design.arm(head=deep, **fixed)
                ),
            )
    yield Claim(
        "control: start",
        "(does not say what new layers start from)",
        "accuracy of the linear head from Glorot's start, less that from 0.01",
        against(design.arm(head_init=GLOROT), Arm()),
        (-LITTLE, LITTLE),
    )


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


class Span(NamedTuple):
    """What one axis does around the base.

    Attributes:
        name: of its sweep.
        title: of the axis.
        best: its setting with the highest accuracy.
        label: the value of that.
        range: best minus worst mean, 0..1.
        share: of the sum over all axes of the variance of the means over its values,
            less what noise alone gives; 0..1.
        weights: (m,) of the settings in `range`.
    """

    name: str
    title: str
    best: Arm
    label: str
    range: float
    share: float
    weights: np.ndarray


def axis_spans(design: Design, measured: Measured, mode: str) -> tuple[Span, ...]:
    """Every axis that is varied alone, the one with the largest share first."""
    evidence, found = weigh(measured), []
    for name in ("size", "rate", "l2_large", "batch", "epochs", "factor", "heads"):
        sweep = design.sweeps[name]
        own = [
            (arm, label, measured.cells[mode, arm])
            for arm, label in zip(sweep.arms, sweep.labels, strict=True)
            if (mode, arm) in measured.cells
        ]
        if len(own) < 2:
            continue
        cells = [cell for *_, cell in own]
        means = evidence.means[cells]
        covariance = evidence.covariance[np.ix_(cells, cells)]
        noise = np.trace(covariance) / len(cells) - covariance.mean()
        weights = np.zeros(len(evidence.means))
        top, bottom = int(means.argmax()), int(means.argmin())
        weights[cells[top]] += 1
        weights[cells[bottom]] -= 1
        found.append(
            Span(
                name,
                sweep.title,
                own[top][0],
                own[top][1],
                float(np.ptp(means)),
                max(float(means.var()) - float(noise), 0.0),
                weights,
            )
        )
    total = sum(span.share for span in found) or 1.0
    shares = (span._replace(share=span.share / total) for span in found)
    return tuple(sorted(shares, key=lambda span: -span.share))


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
