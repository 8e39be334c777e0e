"""What the test split says of the network that the answer names."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ftjax.analysis.recommend import Recommendation
from ftjax.analysis.wording import percent
from ftjax.report.drawing import finished, rows_of
from ftjax.stats.distributions import wilson_interval


def named_trial(results: pd.DataFrame, best: Recommendation) -> str | None:
    """The trial that the answer names; of several seeds the one that is exported.

    Args:
        results: as in results.csv.
        best: the answer.
    """
    rows = finished(rows_of(results, best))
    rows = rows[(rows["bn"] == best.bn) & (rows["depth_layers"] == best.depth_layers)]
    if rows.empty:
        return None
    return str(rows.loc[rows["val_accuracy"].idxmax(), "trial"])


def score_sentence(score: Mapping[str, Any], trial: str | None) -> str:
    """The score with its interval; says so if it is of an earlier choice.

    Args:
        score: as of test.json.
        trial: that is named now.
    """
    low, high = wilson_interval(score["correct"], score["images"])
    text = (
        f"On {score['images']:,} test images, scored once: "
        f"{percent(score['accuracy'])} (95 % interval {percent(low)} to "
        f"{percent(high)})."
    )
    if trial != score["trial"]:
        text += (
            f" That is trial {score['trial']}, which an earlier answer named; the test "
            "images are not used for a second choice."
        )
    return text
