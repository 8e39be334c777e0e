"""How well cheap probes order the depths of a measured curve."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ftjax.analysis.curves import clean_results

PROBES = ("ridge_accuracy", "logme", "gradient_norm")


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of a probe with a measured curve.

    Attributes:
        probe: its column.
        bn: policy of the curve.
        correlation: -1..1.
        p_value: two-sided, by permutation.
        num_depths: that probe and curve both have.
    """

    probe: str
    bn: str
    correlation: float
    p_value: float
    num_depths: int


def rank_correlation(
    probes: pd.DataFrame,
    results: pd.DataFrame,
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> tuple[RankCorrelation, ...]:
    """How well each probe orders the depths, for each BatchNorm policy.

    Spearman 1904, ties get their mean rank. The p value permutes the depths (Phipson
    and Smyth 2010: the observed order counts as one permutation). Neighboring depths
    are not independent, so it is too small if anything.

    Args:
        probes: of `probe_curve`.
        results: rows of results.csv.
        permutations: number of them, drawn at random.
        seed: of the draws.

    Returns:
        One entry per probe and policy with at least three common depths; correlation
        and p value are nan where a curve is constant.
    """
    table, _ = clean_results(results)
    means = table.groupby(["bn", "depth_layers"])["val_accuracy"].mean()
    ahead = probes.set_index("depth_layers")
    rng = np.random.default_rng(seed)
    found = []
    for bn in means.index.get_level_values("bn").unique():
        joined = ahead.join(means[bn].rename("measured"), how="inner")
        for probe in PROBES:
            both = joined[[probe, "measured"]].dropna()
            if len(both) < 3:
                continue
            ranks = both.rank().to_numpy(float)
            ranks = ranks - ranks.mean(axis=0)
            scale = np.sqrt((ranks**2).sum(axis=0).prod())
            rho = p_value = float("nan")
            if scale > 0:
                rho = float(ranks[:, 0] @ ranks[:, 1] / scale)
                mixed = rng.permuted(np.tile(ranks[:, 0], (permutations, 1)), axis=1)
                extreme = np.abs(mixed @ ranks[:, 1] / scale) >= abs(rho) - 1e-12
                p_value = float((1 + extreme.sum()) / (1 + permutations))
            found.append(RankCorrelation(probe, str(bn), rho, p_value, len(both)))
    return tuple(found)
