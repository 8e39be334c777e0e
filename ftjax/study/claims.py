"""The sentences of the paper with a number or a direction.

A claim says that a contrast of settings lies in a region.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ftjax.axes import ALL, GLOROT, LINEAR
from ftjax.study.points import DEEP, HIDDEN, LARGE, SMALL, Arm, Design

ABOVE = (0.0, math.inf)
LITTLE = 0.02  # points / 100: "a little", "negligible", no trend
NEARLY = 0.01  # below a level that is "nearly" reached
CHANCE = 0.05  # above chance that is still "no better than chance"


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
