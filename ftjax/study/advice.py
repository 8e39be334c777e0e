"""The settings that the study recommends, in one sentence."""

import math

from ftjax.analysis.wording import percent, points
from ftjax.study.measured import Measured, weigh
from ftjax.study.points import MODES, WHOLE, Arm, Design
from ftjax.study.spans import axis_spans
from ftjax.study.verdicts import SUPPORTED, judge

COSTS = ("size", "epochs")  # axes that are no choice: more of them costs more


def recommended(design: Design, measured: Measured) -> str:
    """The better mode, the values that beat the base, and the axis that matters most.

    A value is named where its 95 % interval is above the base's accuracy, each axis
    varied alone; all else stays as in the base.

    Args:
        design: of the study.
        measured: its runs.
    """
    evidence = weigh(measured)
    tried = [
        (float(evidence.means[index]), mode)
        for (mode, arm), index in measured.cells.items()
        if (mode, Arm()) in measured.cells
    ]
    if not tried:
        return "No setting was trained to the end in all its runs."
    _, mode = max(tried)
    base = measured.cells[mode, Arm()]
    spans = axis_spans(design, measured, mode)
    gains, best = [], base
    for span in spans:
        cell = measured.cells[mode, span.best]
        if span.name in COSTS or cell == base:
            continue
        difference = float(evidence.means[cell] - evidence.means[base])
        stderr = float(evidence.stderr[cell, base])
        if judge(difference, stderr, (0.0, math.inf)) != SUPPORTED:
            continue
        gain = f"+{points(difference)} +- {points(stderr)} points"
        gains.append((difference, f"{span.title} {span.label} ({gain})"))
        best = max(best, cell, key=lambda index: evidence.means[index])
    named = [words for _, words in sorted(gains, reverse=True)]
    error = math.sqrt(evidence.covariance[best, best])
    layers = "all layers" if mode == WHOLE else "the head alone, on fixed features"
    listed = ", ".join(named) if named else "the paper's settings as they are"
    alone = "; each was varied alone" if len(named) > 1 else ""
    other = next(own for own in MODES if own != mode)
    first = spans[0] if spans else None
    matters = (
        f"; what matters most is {first.title}: {100 * first.share:.0f} % of the "
        f"variance along all axes, {points(first.range)} points from its worst to its "
        "best value"
        if first
        else ""
    )
    against = ""
    if (other, Arm()) in measured.cells:
        tops = [
            evidence.means[index]
            for (own, _), index in measured.cells.items()
            if own == other
        ]
        against = f", against {percent(max(tops))} at best with {MODES[other]}"
    return (
        f"Train {layers}, with {listed}: {percent(float(evidence.means[best]))} "
        f"(+- {points(error)}) for the best of them{against}{alone}{matters}."
    )
