"""Several runs side by side: what their answers share, and what one rule for all costs.

Depths of different networks are compared by their share of the layers. The rule is
that of Philip 2025: unfreeze the top 20 to 25 % of the layers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ftjax.analysis.recommendation import Recommendation
from ftjax.analysis.wording import METRIC_WORDS, depth_span, metric_value, points

RULE = (20, 25)  # percent of the layers
COLUMNS = (
    "run model data bn metric value seeds confidence depth_layers total_layers "
    "depth_percent set_low set_high rule_tested rule_in_set rule_depth rule_loss "
    "rule_stderr full_loss full_stderr head_loss head_stderr"
).split()


class Cost(NamedTuple):
    """What a depth lacks to the best one.

    Attributes:
        depth: number of layers.
        percent: share of the layers, 0..100.
        loss: of the metric, 0..1.
        stderr: of that difference.
    """

    depth: int
    percent: float
    loss: float
    stderr: float

    def __str__(self) -> str:
        return f"{points(self.loss)} ± {points(self.stderr)}"


class RunAnswer(NamedTuple):
    """The answer of one run.

    Attributes:
        name: of the run.
        model: name of the network.
        data: name of the data set.
        answer: its recommendation.
    """

    name: str
    model: str
    data: str
    answer: Recommendation

    def percent(self, depth: float) -> float:
        """Layers as a share of the network's, 0..100."""
        return 100 * depth / self.answer.total_layers

    def cost(self, depth: int) -> Cost:
        """Of a tested depth."""
        return Cost(depth, self.percent(depth), *self.answer.losses[depth])

    def nearest(self, percent: float) -> Cost:
        """Of the tested depth nearest to a share of the layers."""
        tested = self.answer.losses
        return self.cost(min(tested, key=lambda d: abs(self.percent(d) - percent)))

    @property
    def span(self) -> tuple[int, int] | None:
        """The set of a search, in layers: over all depths, tested or not."""
        over_all = self.answer.scope.startswith("every depth")
        return self.answer.interval_layers if over_all else None

    @property
    def rule(self) -> Cost:
        """Of the tested depth nearest to the middle of the rule's shares."""
        return self.nearest(sum(RULE) / 2)

    @property
    def rule_tested(self) -> bool:
        """Whether a depth that follows the rule was tested."""
        return any(follows(self.percent(depth)) for depth in self.answer.losses)

    @property
    def rule_in_set(self) -> bool | None:
        """Whether a depth that follows the rule is as good as can be told.

        None where none was tested: that is no evidence for or against the rule.
        """
        if self.span:
            low, high = map(self.percent, self.span)
            return low <= RULE[1] and high >= RULE[0]
        if not self.rule_tested:
            return None
        return any(follows(self.percent(depth)) for depth in self.answer.not_worse)

    @property
    def full(self) -> Cost | None:
        """Of the whole network unfrozen, None where that was not tested."""
        total = self.answer.total_layers
        return self.cost(total) if total in self.answer.losses else None

    @property
    def head(self) -> Cost | None:
        """Of the head alone, None where that was not tested."""
        return self.cost(0) if 0 in self.answer.losses else None

    def holds(self, percent: float) -> bool:
        """Whether the tested depth nearest to a share is as good as can be told."""
        if self.span:
            low, high = map(self.percent, self.span)
            return low <= percent <= high
        return self.nearest(percent).depth in self.answer.not_worse

    @property
    def set_words(self) -> str:
        """The depths that are as good as can be told."""
        if self.span:
            return f"{self.span[0]} to {self.span[1]} layers"
        return depth_span(self.answer.not_worse, self.answer.tested)

    def row(self) -> dict:
        """A row of compare.csv; losses in points of the metric, 0..1."""
        answer = self.answer
        row = {
            "run": self.name,
            "model": self.model,
            "data": self.data,
            "bn": answer.bn,
            "metric": answer.metric,
            "value": answer.val_accuracy,
            "seeds": answer.seeds[0],
            "confidence": answer.confidence,
            "depth_layers": answer.depth_layers,
            "total_layers": answer.total_layers,
            "depth_percent": round(answer.depth_percent, 2),
            "set_low": answer.not_worse[0],
            "set_high": answer.not_worse[-1],
            "rule_tested": self.rule_tested,
            "rule_in_set": self.rule_in_set,
            "rule_depth": self.rule.depth,
        }
        for name in ("rule", "full", "head"):
            cost = getattr(self, name)
            row[f"{name}_loss"] = cost and cost.loss
            row[f"{name}_stderr"] = cost and cost.stderr
        return row


def follows(percent: float) -> bool:
    """Whether a share of the layers is within the rule."""
    return RULE[0] <= percent <= RULE[1]


def check_comparable(runs: Sequence[RunAnswer]) -> None:
    """Raises ValueError where runs cannot stand side by side.

    They can where two runs or more have one metric, and each has two depths or more
    and learned something.
    """
    if len(runs) < 2:
        raise ValueError("one run is nothing to compare: give two or more folders")
    metrics = {run.answer.metric: run.name for run in runs}
    if len(metrics) > 1:
        each = ", ".join(f"{name} by {metric}" for metric, name in metrics.items())
        raise ValueError(
            f"these runs are judged by different metrics ({each}): give one for all "
            f"with --metric, e.g. --metric accuracy"
        )
    for run in runs:
        if len(run.answer.losses) < 2:
            raise ValueError(
                f"{run.name} has a single finished depth, so nothing to compare: leave "
                "it out, or train more depths"
            )
        if run.answer.named is None:
            raise ValueError(
                f"{run.name} is at chance level at every depth, so no depth can be "
                "named: leave it out"
            )


def run_table(runs: Sequence[RunAnswer]) -> pd.DataFrame:
    """The rows of compare.csv."""
    return pd.DataFrame([run.row() for run in runs], columns=COLUMNS)


def common_shares(runs: Sequence[RunAnswer]) -> tuple[tuple[int, int], ...]:
    """Stretches of whole percents that are in the sets of all runs.

    A share is in a run's set where the tested depth nearest to it is.
    """
    found: list[tuple[int, int]] = []
    for percent in range(101):
        if not all(run.holds(percent) for run in runs):
            continue
        joined = bool(found) and found[-1][1] == percent - 1
        low = found.pop()[0] if joined else percent
        found.append((low, percent))
    return tuple(found)


def common_rule(runs: Sequence[RunAnswer]) -> tuple[int, RunAnswer, Cost]:
    """The share that costs least where it costs most, that run, and its cost."""

    def dearest(percent: int) -> tuple[int, RunAnswer, Cost]:
        run = max(runs, key=lambda run: run.nearest(percent).loss)
        return percent, run, run.nearest(percent)

    return min(map(dearest, range(101)), key=lambda found: found[2].loss)


def comparison_sentences(runs: Sequence[RunAnswer]) -> tuple[str, ...]:
    """What the runs say together, the rule first."""
    tested = [run for run in runs if run.rule_in_set is not None]
    holding = sum(bool(run.rule_in_set) for run in tested)
    low, high = RULE
    missing = len(runs) - len(tested)
    rule = (
        f"In {holding} of {len(tested)} runs a depth of {low} to {high} % of the "
        "layers is as good as can be told"
    )
    if missing:
        rule += f"; {missing} more tested no such depth"
    if not tested:
        rule = f"No run tested a depth of {low} to {high} % of the layers"
    worst = max(runs, key=lambda run: run.rule.loss)
    rule += (
        f". Following that rule costs at most {worst.rule} points ({worst.name}, "
        f"{worst.rule.depth} layers, {worst.rule.percent:.0f} %)."
    )
    return (
        rule,
        *(
            _everywhere([getattr(run, name) for run in runs], words)
            for name, words in (
                ("full", "Full fine-tuning"),
                ("head", "The head alone"),
            )
        ),
        _common(runs),
    )


def _everywhere(costs: Sequence[Cost | None], words: str) -> str:
    known = [cost for cost in costs if cost is not None]
    if not known:
        return f"{words} was not tested."
    least, most = (pick(known, key=lambda c: c.loss) for pick in (min, max))
    tested = "" if len(known) == len(costs) else f" (tested in {len(known)} runs)"
    return f"{words} costs {least} to {most} points{tested}."


def _common(runs: Sequence[RunAnswer]) -> str:
    shares = common_shares(runs)
    percent, run, cost = common_rule(runs)
    spans = [f"{a}" if a == b else f"{a} to {b}" for a, b in shares]
    held = (
        f"The sets of all runs share {', '.join(spans)} % of the layers"
        if shares
        else "No share of the layers is in the sets of all runs"
    )
    return (
        f"{held}; the one share that costs least where it costs most is {percent} %, "
        f"at most {cost} points ({run.name})."
    )


def answer_words(run: RunAnswer) -> str:
    """E.g. `77 (52 %), 98.2 %`; the metric is named where it is not the accuracy."""
    answer = run.answer
    value = metric_value(answer.metric, answer.val_accuracy)
    named = "" if answer.metric == "accuracy" else f" {METRIC_WORDS[answer.metric]}"
    value = value if answer.metric == "log_loss" else f"{value}{named}"
    return f"{answer.depth_layers} ({answer.depth_percent:.0f} %), {value}"
