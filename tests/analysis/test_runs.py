"""Several runs side by side, against values counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from made_sweep import made_results

from ftjax.analysis.recommend import recommend
from ftjax.analysis.runs import (
    RunAnswer,
    check_comparable,
    common_rule,
    common_shares,
    comparison_sentences,
    run_table,
)

ANSWER = recommend(made_results(seeds=2, bn=("frozen",)), bootstrap=100)


def made_run(name, total, losses, inside):
    """A run whose best depth is the first of its set; errors are 0.01."""
    return RunAnswer(
        name,
        "tiny",
        "made",
        replace(
            ANSWER,
            depth_layers=inside[0],
            total_layers=total,
            depth_percent=100 * inside[0] / total,
            tested=tuple(losses),
            not_worse=tuple(inside),
            losses={depth: (loss, 0.01) for depth, loss in losses.items()},
        ),
    )


FIRST = made_run("one", 100, {0: 0.10, 22: 0.02, 60: 0.0, 100: 0.04}, (60, 22))
SECOND = made_run("two", 200, {0: 0.0, 100: 0.03, 200: 0.20}, (0, 100))


def test_losses_are_those_to_the_named_depth():
    results = made_results(seeds=2, bn=("frozen",))
    means = results.groupby("depth_layers")["val_accuracy"].mean()
    lacking = means[ANSWER.depth_layers] - means
    assert list(ANSWER.losses) == list(means.index)
    found = [loss for loss, _ in ANSWER.losses.values()]
    np.testing.assert_allclose(found, lacking, atol=1e-12)
    assert ANSWER.losses[ANSWER.depth_layers] == (0.0, 0.0)
    assert all(error > 0 for loss, error in ANSWER.losses.values() if loss)


def test_rule_full_and_head_of_a_run():
    assert (FIRST.rule_tested, FIRST.rule_in_set) == (True, True)
    assert FIRST.rule == (22, 22.0, 0.02, 0.01) and str(FIRST.rule) == "2.0 ± 1.0"
    assert FIRST.full == (100, 100.0, 0.04, 0.01) and FIRST.head == (0, 0.0, 0.1, 0.01)
    outside = made_run("three", 100, {0: 0.1, 25: 0.02, 60: 0.0}, (60,))
    assert (outside.rule_in_set, outside.full) == (False, None)
    # 0 and 50 % were tested, so nothing is known of 20 to 25 %
    assert (SECOND.rule_tested, SECOND.rule_in_set) == (False, None)
    assert SECOND.rule.depth == 0
    row = run_table([FIRST, SECOND]).iloc[1]
    assert row["rule_in_set"] is None and row["full_loss"] == 0.20


def test_the_set_of_a_search_spans_depths_that_were_not_tested():
    scope = "every depth, by the search's model of the curve"
    searched = replace(SECOND.answer, scope=scope, interval_layers=(0, 100))
    run = SECOND._replace(answer=searched)
    assert (run.rule_tested, run.rule_in_set) == (False, True)
    assert run.set_words == "0 to 100 layers"
    assert run.holds(49) and not run.holds(51)
    narrow = run._replace(answer=replace(searched, interval_layers=(60, 100)))
    assert narrow.rule_in_set is False


def test_what_runs_have_in_common():
    # of the first, 12 to 80 % are nearest to 22 or 60; of the second, 0 to 75 % to 0
    # or 50
    assert common_shares([FIRST, SECOND]) == ((12, 75),)
    share, run, cost = common_rule([FIRST, SECOND])
    # 12 to 25 % are the first's 22 layers and the second's head
    assert (share, run.name, cost.loss) == (12, "one", 0.02)
    rule, full, head, shared = comparison_sentences([FIRST, SECOND])
    assert rule.startswith("In 1 of 1 runs a depth of 20 to 25 % of the layers is as ")
    assert "; 1 more tested no such depth. Following that rule costs at most" in rule
    assert "2.0 ± 1.0 points (one, 22 layers, 22 %)" in rule
    assert full == "Full fine-tuning costs 4.0 ± 1.0 to 20.0 ± 1.0 points."
    assert head == "The head alone costs 0.0 ± 1.0 to 10.0 ± 1.0 points."
    assert shared.startswith("The sets of all runs share 12 to 75 % of the layers; ")
    apart = made_run("three", 100, {0: 0.1, 90: 0.0}, (90,))
    assert common_shares([SECOND, apart]) == ((46, 75),)
    assert common_shares([made_run("x", 10, {0: 0.0, 10: 0.5}, (0,)), apart]) == (
        (46, 50),
    )


def test_what_cannot_be_compared():
    other = FIRST._replace(name="b", answer=replace(FIRST.answer, metric="log_loss"))
    for runs, message in (
        ([FIRST], "one run is nothing to compare"),
        ([FIRST, other], r"different metrics \(one by accuracy, b by log_loss\)"),
        ([FIRST, made_run("c", 9, {3: 0.0}, (3,))], "c has a single finished depth"),
    ):
        with pytest.raises(ValueError, match=message):
            check_comparable(runs)
