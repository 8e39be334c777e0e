"""From heat maps to a depth: the paper's rule, stated so that it can be wrong.

The depth paper (Philip 2025) unfreezes the stages whose maps are class-specific, by
looking at four of them. Here a stage is class-specific if its maps find the pixels
that matter to one class and not to another (`gradcam_checks.margin_effect`).

It was wrong: see `RECORD`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ftjax.gradcam.maps import Stage

THRESHOLD = 2 / 3  # right twice as often as wrong; maps that know nothing have 1/2
FINE = 16  # pixels of a map; of a coarser one, 20 % are too few to be right or wrong
FAR = 0.1  # of all layers; a tested depth as far away says nothing about a suggestion
WIDE_INTERVAL = 0.8  # of the tested range; an interval as wide confirms nothing
RECORD = (
    "How far to trust this rule: its threshold, 2/3, was chosen after the hit rates of "
    "food101_5 had been seen. On four data sets (EfficientNet-Lite0, BatchNorm frozen, "
    "200 to 480 training images, 2 or 3 epochs, one seed) it did not predict the "
    "measured optimum: digits 123 layers against 87, CIFAR-10 0 against 21, food101_5 "
    "123 against 21, dogs_10 0 against 41. Its depths were 3.7 points worse than the "
    "best on average, the head alone 3.2. Use the measured depth."
)


class Suggestion(NamedTuple):
    """The cut that the maps suggest.

    Attributes:
        depth_layers: Keras layers to unfreeze from the top.
        first_stage: the lowest stage to unfreeze, from 1 at the input; None for none.
        sentence: in plain words.
    """

    depth_layers: int
    first_stage: int | None
    sentence: str


class Agreement(NamedTuple):
    """The suggestion beside the measured optimum.

    Attributes:
        suggested: depth of the rule, in layers.
        measured: the best tested depth, in layers.
        interval: of the best depth; None if it has none.
        verdict: `agrees`: the tested depth nearest to the suggestion is not worse than
            the best; `inside`: it is worse, but in the interval of the best depth;
            `disagrees`; `untested`: no depth near it was trained, or every depth is at
            chance level.
        sentence: in plain words.
    """

    suggested: int
    measured: int
    interval: tuple[int, int] | None
    verdict: str
    sentence: str

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The two depths and whether they agree, as (name, value)."""
        interval = "none"
        if self.interval:
            interval = f"{self.interval[0]} to {self.interval[1]} layers"
        words = {"agrees": "yes", "untested": "cannot be judged"}
        return (
            ("Suggested by Grad-CAM", f"{self.suggested} layers"),
            ("Measured optimum", f"{self.measured} layers"),
            ("Its interval", interval),
            ("Agreement", words.get(self.verdict, "no")),
        )


def suggest_depth(stages: Sequence[Stage], hit_rates: Sequence[float]) -> Suggestion:
    """Unfreezes the stages on top whose maps are class-specific, without a gap.

    Stages whose maps have fewer than 16 pixels (the last ones, with small images)
    cannot be judged; they go with the stage below them.

    Args:
        stages: input first.
        hit_rates: per stage, the share of images where hiding the strongest pixels of
            the true class's map hurts that class more than hiding those of its rival's;
            0..1, NaN where no image has both maps.

    Raises:
        ValueError: the two do not belong together.
    """
    if len(stages) != len(hit_rates):
        raise ValueError(
            f"{len(hit_rates)} hit rates for {len(stages)} stages; give one for each"
        )
    judged = sum(stage.height * stage.width >= FINE for stage in stages)
    first = judged
    while first > 0 and hit_rates[first - 1] >= THRESHOLD:
        first -= 1
    chosen = stages[first:] if first < judged else ()
    layers = sum(stage.num_layers for stage in chosen)
    units = sum(len(stage.units) for stage in chosen)
    rates = ", ".join(f"{rate:.2f}" for rate in hit_rates)
    facts = f"hit rates {rates} from the input; threshold {THRESHOLD:.2f}"
    if judged < len(stages):
        facts += (
            f"; maps after stage {judged} have fewer than {FINE} pixels and are not "
            "judged"
        )
    if chosen:
        which = (
            f"stage {judged} is"
            if first == judged - 1
            else f"stages {first + 1} to {judged} are"
        )
        text = (
            f"Grad-CAM rule: {which} class-specific ({facts}), so unfreeze the top "
            f"{layers} layers ({units} block{'s' * (units != 1)})."
        )
    elif judged:
        text = (
            f"Grad-CAM rule: not even stage {judged} is class-specific ({facts}), so "
            "train the head alone."
        )
    else:
        text = (
            f"Grad-CAM rule: no map has {FINE} pixels, so nothing can be judged; take "
            "a larger --image-size."
        )
    return Suggestion(layers, first + 1 if chosen else None, text)


def compare(
    suggestion: Suggestion, measured: Mapping[str, Any], tested: Sequence[int]
) -> Agreement:
    """Says whether the suggested depth is as good as the measured optimum.

    Args:
        suggestion: of `suggest_depth`.
        measured: as in recommendation.json: `depth_layers`, `total_layers`,
            `not_worse`, `interval_layers`, `shape`.
        tested: depths that were trained, in layers.
    """
    best, total = int(measured["depth_layers"]), int(measured["total_layers"])
    depth = suggestion.depth_layers
    nearest = min(tested, key=lambda tried: (abs(tried - depth), tried))
    interval = measured.get("interval_layers")
    low, high = interval or (best, best)
    if measured.get("shape") == "chance":
        verdict = "untested"
        text = "cannot be judged: every tested depth is at chance level"
    elif abs(nearest - depth) > FAR * total:
        verdict = "untested"
        text = f"cannot be judged: add {depth} to the sweep's --depths"
    elif nearest in measured["not_worse"]:
        verdict = "agrees"
        text = "agrees: its nearest tested depth is not worse than the best"
    elif interval and low <= depth <= high:
        verdict = "inside"
        text = (
            "does not agree: its nearest tested depth is worse than the best, though "
            "the interval does not exclude it"
        )
    else:
        verdict = "disagrees"
        text = "does not agree: its nearest tested depth is worse than the best"
    text = (
        f"Measured optimum: top {best} of {total} layers"
        + (f", interval {low} to {high}" if interval else ", without an interval")
        + f". The Grad-CAM rule's {depth} (nearest tested: {nearest}) {text}."
    )
    if interval and high - low >= WIDE_INTERVAL * (max(tested) - min(tested)):
        text += " The interval holds nearly every tested depth, so this proves little."
    interval = interval and (int(low), int(high))
    return Agreement(depth, best, interval, verdict, text)
