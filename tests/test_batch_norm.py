"""One table of BatchNorm policies: a new row is known everywhere."""

from dataclasses import replace

import pytest
from made_sweep import made_epochs, made_results

from ftjax.analysis.explain import explain
from ftjax.analysis.recommend import recommend
from ftjax.backbones import make_backbone
from ftjax.backbones.heads import with_head
from ftjax.batch_norm import (
    FOLLOW,
    FROZEN,
    POLICIES,
    RECALIBRATE,
    describe_policies,
    find_policy,
)
from ftjax.depth import make_cut
from ftjax.report.drawing import OTHER, look_of
from ftjax.report.page import write_report
from ftjax.report.sections import Report
from ftjax.search.depths import next_depths
from ftjax.training.suffix import make_suffix


@pytest.fixture
def still(monkeypatch):
    """A fourth policy, in inference mode."""
    policy = replace(
        FROZEN,
        name="still",
        phrase="with BatchNorm kept still",
        meaning="nothing moves",
        color="#123456",
        dark_color="#abcdef",
    )
    monkeypatch.setitem(POLICIES, policy.name, policy)
    return policy


def test_only_running_averages_may_lag():
    assert FOLLOW.may_lag
    assert not FROZEN.may_lag and not RECALIBRATE.may_lag


def test_no_two_policies_look_the_same():
    looks = [look_of(name) for name in POLICIES]
    for values in zip(*looks, strict=True):
        assert len(set(values)) == len(POLICIES)
    assert look_of("of another version") == OTHER


def test_an_unknown_policy_is_one_line(still):
    line = "unknown BatchNorm policy 'thaw'; --bn takes follow, frozen, recalibrate, s"
    with pytest.raises(ValueError, match=line):
        find_policy("thaw")
    assert "still (all in inference mode)" in describe_policies()


def test_a_new_policy_trains_and_is_searched(still):
    network = with_head(make_backbone("tiny"), 3)
    cut = make_cut(network, len(network.layers))
    parts = {name: make_suffix(network, cut, name) for name in POLICIES}
    assert parts["still"] == parts["frozen"] != parts["follow"]
    wanted = next_depths(None, range(0, 20, 4), bn=("still",)).trials
    assert {placement.bn for placement in wanted} == {"still"}


def test_a_new_policy_is_drawn_and_talked_about(still, tmp_path):
    results = made_results(bn=("follow", "frozen"))
    results["bn"] = results["bn"].replace("frozen", "still")
    best = recommend(results)
    assert best.bn == "still" and "BatchNorm kept still" in best.sentence
    falling = results[results["bn"] == "follow"].assign(bn="still")
    (sentence,) = explain(falling).sentences
    assert sentence.startswith("With BatchNorm kept still the curve peaks at")
    path = write_report(
        tmp_path / "report.html",
        Report(
            folder=tmp_path,
            results=results,
            epochs=made_epochs(results),
            best=best,
            config={},
            environment={},
            command="ftjax sweep",
        ),
    )
    text = path.read_text(encoding="utf-8")
    assert "--still: #123456;" in text and "--still: #abcdef;" in text
    assert "<em>still</em>: nothing moves." in text and "var(--still)" in text
