"""What the report page warns of: broken trials, random weights, BatchNorm's lag."""

import pandas as pd

from ftjax.analysis.curves import MOVED, NOT_DONE, STOPPED
from ftjax.analysis.recommend import RANDOM_WEIGHTS, Recommendation
from ftjax.report import batchnorm_plots, drawing


def notices(
    results: pd.DataFrame, best: Recommendation | None = None
) -> tuple[tuple[str, str], ...]:
    """What must not be overlooked, as (level, sentence); level is 'bad' or 'warn'."""
    found = []
    if best is not None and best.left_out:
        found.append(("warn", best.left_out["sentence"]))
    if "weights" in results and "random" in set(results["weights"]):
        found.append(
            (
                "warn",
                "Random weights: this network was not pretrained. The run shows that "
                "the machinery works; it says nothing about transfer, and its depth "
                "is no advice for pretrained weights.",
            )
        )
    if "frozen_intact" in results:
        broken = results["frozen_intact"].astype(str).str.lower() == "false"
        if bool(broken.any()):
            found.append(
                (
                    "bad",
                    f"Freeze broken in {_trials(results[broken])}: frozen weights or "
                    "statistics changed. These numbers are left out; do not use them.",
                )
            )
    if "status" in results:
        for status, level, words in (
            ("failed", "bad", "Failed, and left out of every mean and fit"),
            (
                "diverged",
                "bad",
                "Diverged: at chance in the figures, in no mean or fit",
            ),
            (
                "stopped",
                "warn",
                "Stopped early by --search halving, and left out of every mean and fit",
            ),
            ("pending", "warn", "Not finished yet; the same command goes on with them"),
        ):
            rows = results[results["status"] == status]
            if len(rows):
                found.append((level, f"{words}: {_trials(rows)}."))
    return tuple(found)


def further_warnings(best: Recommendation) -> tuple[str, ...]:
    """The warnings of the recommendation that no notice has said already."""
    said = (f": {NOT_DONE}", f": {STOPPED}", f": {MOVED}", RANDOM_WEIGHTS)
    return tuple(text for text in best.warnings if not any(s in text for s in said))


def _trials(rows: pd.DataFrame) -> str:
    names = rows.drop_duplicates("trial") if "trial" in rows else rows
    depths = ", ".join(f"{d:.0f}" for d in sorted(rows["depth_layers"].unique())[:12])
    count = f"{len(names)} trial{'s' * (len(names) != 1)}"
    return f"{count} (depth {depths}{', …' * (rows['depth_layers'].nunique() > 12)})"


def _advice_without_lag(done: pd.DataFrame) -> str:
    text = (
        "Here training mode is nowhere clearly above evaluation mode: no lag of the "
        "running statistics shows. (Accuracy in training mode is the mean over the "
        "last epoch, so where a network still learns fast a small lag is hidden.) "
    )
    gains = batchnorm_plots.frozen_gains(done)
    if not gains.max() >= batchnorm_plots.CLEAR_GAP:
        return text + "Nothing needs to be done about BatchNorm."
    return (
        f"{text}Yet with BatchNorm held in inference mode the same depth scores up to "
        f"{100 * gains.max():.0f} points more ({gains.idxmax()} layers): the "
        "pretrained statistics serve better than those of each batch. What to do: "
        "keep BatchNorm frozen (--bn frozen)."
    )


def batchnorm_advice(results: pd.DataFrame) -> str:
    """One paragraph: what the distance of training and evaluation mode means here."""
    done = drawing.finished(results)
    if not drawing.measured(done, *batchnorm_plots.MODES):
        return ""
    gap = batchnorm_plots.mode_gaps(done)
    if gap.empty:
        return (
            "Here BatchNorm was frozen in every trial: both modes use the same running "
            "statistics, so they cannot lag."
        )
    if gap.max() < batchnorm_plots.CLEAR_GAP:
        return _advice_without_lag(done)
    bn, depth = drawing.peak(gap)
    return (
        f"Here the distance reaches {100 * gap.max():.0f} points (BatchNorm {bn}, "
        f"{depth} layers). Accuracy that falls for this reason is not overfitting and "
        "not forgetting: the trained weights are better than they look. What to do: "
        "keep BatchNorm frozen (--bn frozen), or let the statistics be re-estimated "
        "over the training images before evaluation (--bn recalibrate); more steps "
        "or a BatchNorm momentum of 0.9 instead of 0.99 help as well."
    )
