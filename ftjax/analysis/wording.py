"""The recommendation in plain words: one sentence after the other, the answer first.

"+-" is one standard error of a difference, images and runs, wherever it stands.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ftjax.batch_norm import POLICIES

SHAPE_WORDS = {
    "single": "only one depth was tested",
    "flat": "no tested depth can be told from the others",
    "deepest": "the deepest tested depth is the best",
    "shallowest": "the shallowest tested depth is the best",
    "unproven": "an end of the curve is as good as can be told",
    "unreplicated": "one run of each depth cannot show one",
    "stopped": "depths that were stopped early are not compared with it",
    "interior": "",
}
METRIC_WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "log_loss": "log loss",
}


def points(difference: float) -> str:
    """An accuracy difference (0..1) in points with one digit: 0.005 -> '0.5'."""
    return f"{100 * difference:.1f}"


def percent(value: float, digits: int = 1) -> str:
    """An accuracy (0..1) as text: 0.985 -> '98.5 %'."""
    return f"{100 * value:.{digits}f} %"


def metric_value(metric: str, value: float) -> str:
    """A score as text; the log loss, kept with its sign turned, as it is known."""
    return f"log loss {-value:.3f}" if metric == "log_loss" else percent(value)


def number(value: float) -> str:
    """A hyperparameter as people write it: 0.0001 -> '1e-4'."""
    text = f"{value:g}"
    if 0 < abs(value) < 0.001 or abs(value) >= 1e5:
        mantissa, exponent = f"{value:.6e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        text = f"{mantissa}e{int(exponent)}"
    return text


def depth_list(depths: Sequence[int]) -> str:
    """Depths as words: 'the head alone', '77 layers', '77 and 115 layers'."""
    texts = [str(depth) for depth in depths]
    if list(depths) == [0]:
        return "the head alone"
    if len(texts) > 6:
        texts = [*texts[:5], f"... ({len(texts)} depths)", texts[-1]]
    joined = ", ".join(texts[:-1])
    listed = f"{joined} and {texts[-1]}" if joined else texts[-1]
    return f"{listed} layers"


def depth_span(depths: Sequence[int], tested: Sequence[int]) -> str:
    """A set of tested depths: '77 to 149 layers' where it has no gap, else a list."""
    places = [sorted(tested).index(depth) for depth in depths]
    if len(depths) > 2 and places[-1] - places[0] == len(depths) - 1:
        return f"{depths[0]} to {depths[-1]} layers"
    return depth_list(depths)


def set_basis(fields: Mapping[str, Any]) -> str:
    """What a set of depths is worth: its confidence, what it knows and what it assumes.

    Args:
        fields: of a `Recommendation`.
    """
    low, high = fields["seeds"]
    runs = f"{high} seeds" if low == high else f"{low} to {high} seeds"
    images = "images" in fields["noise_source"]
    binomial = "binomial" in fields["noise_source"]
    over = "images" if images else "unpaired images" if binomial else ""
    scope = fields["scope"]
    if fields["confidence"] is not None:
        known = f"{over} and {runs}" if over else f"{runs}, number of images unknown"
        mass = f"{100 * fields['confidence']:.0f} % set over {known}"
        return f"{mass}; {scope}" if scope else mass
    shallow, deep = fields["run_spread"]
    sampled = f"{over} sampled" if over else "number of images unknown"
    text = (
        f"{sampled}; how far two runs differ was not measured, and a spread of "
        f"{points(shallow)} (head) to {points(deep)} points (deepest) is assumed, so "
        "this is no confidence interval"
    )
    return f"{text}; {scope}" if scope else text


def _what(fields: Mapping[str, Any], batch_norm: bool) -> str:
    layers, total = fields["depth_layers"], fields["total_layers"]
    units, total_units = fields["depth_units"], fields["total_units"]
    blocks = ""
    if units is not None and total_units is not None:
        blocks = f" ({units} of {total_units} blocks)"
    if layers == 0:
        return f"train the head alone (0 of {total} layers unfrozen)"
    phrase = POLICIES[fields["bn"]].phrase.removeprefix("with ")
    words = f", {phrase}" if batch_norm else ""
    if layers == total:
        return f"unfreeze all {total} layers{blocks}{words}"
    return f"unfreeze the top {layers} of {total} layers{blocks}{words}"


def _worth(fields: Mapping[str, Any]) -> str:
    metric = fields["metric"]
    measured = metric_value(metric, fields["val_accuracy"])
    name = "" if metric == "accuracy" else f" {METRIC_WORDS[metric]}"
    if fields["expected"] is None:
        return f"{measured}{name} as measured"
    expected = metric_value(metric, fields["expected"])
    return (
        f"{expected}{name} expected ({measured} as measured, corrected for having "
        "chosen it)"
    )


def _set(fields: Mapping[str, Any], batch_norm: bool) -> str | None:
    inside = fields["not_worse"]
    if fields["interval_layers"] is None:
        return None
    basis = set_basis(fields)
    low, high = fields["interval_layers"]
    if fields["scope"].startswith("every depth"):
        span = f"{low} to {high} layers" if low < high else depth_list([low])
    else:
        span = depth_span(inside, fields["tested"])
    text = f"As good as can be told: {span} ({basis})"
    if len(inside) > 1:
        least = "the head alone" if inside[0] == 0 else str(inside[0])
        text += f"; the smallest of them is {least}"
    more = [
        f"BatchNorm {bn} at {depth_list(depths)}" if batch_norm else depth_list(depths)
        for bn, depths in fields["elsewhere"].items()
    ]
    if more:
        text += f"; so are {' and '.join(more)}"
    return text


def _others(fields: Mapping[str, Any]) -> str | None:
    found = [
        f"{name} {metric_value(fields['metric'], other['value'])}, "
        f"{100 * other['difference']:+z.1f} +- {points(other['stderr'])} points"
        for name, other in fields["policies"].items()
        if other["stderr"] > 0  # else one trial: the head alone
    ]
    if not found:
        return None
    kind = "BatchNorm policies" if not fields["setting"] else "curves"
    return f"The best of {len(found) + 1} {kind} ({'; '.join(found)})"


def _full(fields: Mapping[str, Any]) -> str | None:
    full = fields["full"]
    if full["depth_layers"] == fields["depth_layers"]:
        return None
    tested = "depth trained to the end" if fields["stopped"] else "tested depth"
    name = f"The deepest {tested} ({full['depth_layers']} layers)"
    if full["depth_layers"] == fields["total_layers"]:
        name = "Full fine-tuning"
    text = (
        f"{name}: {100 * full['difference']:+z.1f} +- {points(full['stderr'])} points"
    )
    if math.isfinite(full["time_ratio"]):
        text += f" at {full['time_ratio']:.1f}x the time"
    return text


def recommendation_parts(
    fields: Mapping[str, Any], *, conditions: str, batch_norm: bool
) -> tuple[str, ...]:
    """Say which depth, under what conditions, how sure, and what else there is.

    Args:
        fields: the fields of a `Recommendation`.
        conditions: of `conditions.condition_words`; may be empty.
        batch_norm: whether to name the policy at all.

    Returns:
        Sentences, the answer first.
    """
    if fields["shape"] == "chance":
        where = f" (at {conditions})" if conditions else ""
        base = fields["baseline"]
        known = "" if base is None else f" {metric_value(fields['metric'], base)},"
        best = metric_value(fields["metric"], fields["val_accuracy"])
        return (
            f"No depth can be recommended{where}: every tested depth is at chance "
            "level, nothing beats always answering the majority class "
            f"({METRIC_WORDS[fields['metric']]}{known} best depth {best}).",
        )
    answer = f"{_what(fields, batch_norm)}: {_worth(fields)}"
    answer = f"At {conditions}: {answer}" if conditions else _capital(answer)
    shape = fields["shape"]
    if shape == "unproven" and fields["confidence"] is None:
        shape = "unreplicated"
    parts = [answer, _set(fields, batch_norm), _others(fields), _full(fields)]
    if not fields["interior_optimum"]:
        parts.append(f"No interior optimum is shown: {SHAPE_WORDS[shape]}")
    said = [part for part in parts if part]
    unexplained = next((i for i, part in enumerate(said) if "+-" in part), None)
    if unexplained is not None:
        said[unexplained] += " (+- is one standard error)"
    return tuple(f"{part}." for part in said)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def duration(seconds: float) -> str:
    """E.g. 45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
