"""The recommendation in one line of plain words."""

import math
from collections.abc import Mapping
from typing import Any

from ftjax.batch_norm import POLICIES

SHAPE_WORDS = {
    "single": "only one depth was tested",
    "flat": "the curve is flat, all tested depths lie within {points} points",
    "deepest": "the deepest tested depth is the best",
    "shallowest": "the shallowest tested depth is the best",
    "unproven": "an end of the curve is as good, within noise or {points} points",
    "stopped": "depths that were stopped early are not compared with it",
    "interior": "",
}


def interval_scope(source: str) -> str:
    """What to say behind an interval: ' over images alone' without seeds, else ''.

    Args:
        source: `interval_source` of a `Recommendation`.
    """
    return " over images alone" if source in ("images", "binomial") else ""


def points(difference: float) -> str:
    """An accuracy difference (0..1) in points with one digit: 0.005 -> '0.5'."""
    return f"{100 * difference:.1f}"


def percent(value: float, digits: int = 1) -> str:
    """An accuracy (0..1) as text: 0.985 -> '98.5 %'."""
    return f"{100 * value:.{digits}f} %"


def _what(fields: Mapping[str, Any], batch_norm: bool) -> str:
    layers, total = fields["depth_layers"], fields["total_layers"]
    units, total_units = fields["depth_units"], fields["total_units"]
    blocks = ""
    if units is not None and total_units is not None:
        blocks = f"{units} of {total_units} blocks, "
    if layers == 0:
        return f"Train the head alone (0 of {total} layers unfrozen)"
    words = f" {POLICIES[fields['bn']].phrase}" if batch_norm else ""
    if layers == total:
        return f"Unfreeze all {total} layers ({blocks}100 %){words}"
    percent = f"{fields['depth_percent']:.0f} %"
    return f"Unfreeze the top {layers} of {total} layers ({blocks}{percent}){words}"


def _full(fields: Mapping[str, Any]) -> str | None:
    full = fields["full"]
    if full["depth_layers"] == fields["depth_layers"]:
        return None
    tested = "depth trained to the end" if fields["stopped"] else "tested depth"
    name = f"the deepest {tested} ({full['depth_layers']} layers)"
    if full["depth_layers"] == fields["total_layers"]:
        name = "full fine-tuning"
    text = f"{name}: {100 * full['difference']:+.1f}"
    if math.isfinite(full["stderr"]):
        text += f" +- {points(full['stderr'])}"
    text += " points"
    if math.isfinite(full["time_ratio"]):
        text += f" at {full['time_ratio']:.1f}x the time"
    return text


def recommendation_sentence(
    fields: Mapping[str, Any], *, policies: Mapping[str, float], batch_norm: bool
) -> str:
    """Say which depth, how sure, what else would do, and what full depth costs.

    Args:
        fields: the fields of a `Recommendation`. policies: best accuracy by BatchNorm
            policy; with more than one the sentence says that the best was taken.
        batch_norm: whether to name the policy at all.

    Returns:
        One line; "+-" is one paired standard error.
    """
    if fields["shape"] == "chance":
        return (
            "No depth can be recommended: every tested depth is at chance level "
            f"(best {percent(fields['val_accuracy'])})."
        )
    parts = [_what(fields, batch_norm)]
    if len(policies) > 1:
        beaten = [
            f"{bn} {percent(value)}"
            for bn, value in policies.items()
            if bn != fields["bn"]
        ]
        parts[0] += (
            f", the best of {len(policies)} BatchNorm policies "
            f"({percent(fields['val_accuracy'])} against {', '.join(beaten)})"
        )
    interval = fields["interval_layers"]
    if interval is not None:
        over = interval_scope(fields["interval_source"])
        parts.append(f"95 % interval {interval[0]}-{interval[1]}{over}")
    elif fields["shape"] not in ("single", "stopped"):
        parts.append("no interval (no replicates)")
    epsilon = points(fields["epsilon"])
    same = [str(L) for L in fields["not_worse"] if L != fields["depth_layers"]]
    if same:
        listed = ", ".join(same)
        parts.append(
            f"these depths are not worse by more than {epsilon} points: {listed}"
        )
    elif fields["shape"] != "single":
        other = "depth trained to the end" if fields["stopped"] else "depth"
        parts.append(f"no other {other} comes within {epsilon} points")
    smallest = fields["smallest_within_one_se"]
    if smallest != fields["depth_layers"]:
        parts.append(f"smallest depth within one standard error: {smallest}")
    full = _full(fields)
    if full is not None:
        parts.append(full)
    if not fields["interior_optimum"]:
        reason = SHAPE_WORDS[fields["shape"]].format(points=epsilon)
        parts.append(f"no interior optimum: {reason}")
    return "; ".join(parts) + "."
