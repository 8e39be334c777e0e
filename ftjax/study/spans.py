"""How much accuracy each axis moves around the base: which one matters most."""

from typing import NamedTuple

import numpy as np

from ftjax.study.measured import Measured, weigh
from ftjax.study.points import Arm, Design


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
