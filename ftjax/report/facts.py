"""The numbers beside the answer on the report page: accuracies, the set, the time."""

from pathlib import Path

import pandas as pd

from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.wording import METRIC_WORDS, depth_span, metric_value
from ftjax.machine.files import read_json
from ftjax.report import drawing

TIME_FILE = "time.json"  # what the commands took, in the folder of the run


def answer_parts(best: Recommendation) -> tuple[str, ...]:
    """The sentences of the answer without what it begins with, for the page.

    The set of depths is left out: it stands among the key facts.
    """
    return tuple(
        part.replace("+-", "±").replace(" %", "\N{NO-BREAK SPACE}%")
        for part in best.parts
    )


def key_facts(
    results: pd.DataFrame, best: Recommendation
) -> tuple[tuple[str, str], ...]:
    """The numbers a reader looks for first, as (name, value)."""
    name = METRIC_WORDS[best.metric]
    facts = []
    if best.expected is not None and best.expected_interval is not None:
        low, high = (metric_value(best.metric, x) for x in best.expected_interval)
        new = "new runs" if best.confidence is not None else "this run"
        facts.append(
            (
                f"Expected {name} ({new}, new images)",
                f"{metric_value(best.metric, best.expected)} ({low} to {high})",
            )
        )
    measured = metric_value(best.metric, best.val_accuracy)
    facts.append((f"As measured ({name})", measured))
    if best.interval_layers is not None:
        mass = best.confidence
        head = "As good as can be told"
        head += f" ({100 * mass:.0f} % set)" if mass else " (run noise assumed)"
        low, high = best.interval_layers
        span = depth_span(best.not_worse, best.tested)
        if best.scope.startswith("every depth"):
            span = f"{low} to {high} layers" if low < high else f"{low} layers"
        facts.append((head, span))
        least = f"{best.smallest} layers" if best.smallest else "the head"
        facts.append(("The smallest of them", least))
    if best.baseline is not None:
        base = metric_value(best.metric, best.baseline)
        facts.append(("Majority class", base))
    return tuple(
        (key, value.replace(" %", "\N{NO-BREAK SPACE}%")) for key, value in facts
    )


def time_facts(folder: Path, results: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """What the run took, compilation and loading included, and what was forecast.

    Where no command has written its time, the sum over the trials stands instead.

    Args:
        folder: of the run.
        results: as in results.csv.
    """
    known = read_json(folder / TIME_FILE) or {}
    commands = known.get("commands", [])
    if not commands:
        if not drawing.measured(results, "seconds"):
            return ()
        unique = results.drop_duplicates("trial") if "trial" in results else results
        columns = [name for name in ("seconds", "compile_seconds") if name in unique]
        total = unique[columns].sum().sum()
        return (("Time of all trials, with compilation", f"{total:.0f} s"),)
    total = sum(command["seconds"] for command in commands)
    facts = [("Time in all, with compilation", f"{total:.0f} s")]
    if "plan" in known:
        facts.append(("Forecast by --plan", f"{known['plan']:.0f} s"))
    if len(commands) == 1 and commands[0]["forecast"] is not None:
        text = f"{commands[0]['forecast']:.0f} s"
        facts.append(("Forecast after the first trial", text))
    return tuple(facts)
