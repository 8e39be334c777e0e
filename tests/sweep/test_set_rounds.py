"""`--sets`: what is trained, what stays frozen, and where it stands."""

import numpy as np
import pandas as pd
import pytest
from tiny_sweep import tiny_sweep

from ftjax.frozen import cache
from ftjax.sweep import records
from ftjax.sweep.checkpoint import Checkpoints
from ftjax.sweep.run import run

pytestmark = pytest.mark.usefixtures("undrawn")
GRID = {"depths": ("0", "3"), "bn": ("follow", "frozen")}
SETS = ("plain_conv+res_block2", "mb_block1", "top")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sets")
    sweep = tiny_sweep(out, sets=SETS, epochs=2, **GRID)
    outcome = run(sweep, out)
    assert not outcome.failed
    return sweep, out, outcome


def test_sets_have_a_table_of_their_own(swept):
    _, out, outcome = swept
    table = pd.read_csv(out / "sets.csv")
    assert set(table["blocks"]) == set(SETS) and len(table) == 6
    assert (table["status"] == "done").all() and table["frozen_intact"].all()
    results = pd.read_csv(out / "results.csv")
    assert (
        set(results["depth_layers"]) == {0, 3} == set(outcome.results["depth_layers"])
    )
    assert "blocks" not in results and len(results) == 4
    shared = set(table["trial"]) & set(results["trial"])
    assert shared == set(results["trial"][results["depth_layers"] == 3])  # the top


def test_frozen_blocks_between_stay_bit_for_bit(swept):
    sweep, out, _ = swept
    table = pd.read_csv(out / "sets.csv", index_col=["blocks", "bn"])
    store = Checkpoints(
        records.trial_folder(out, table.loc[(SETS[0], "follow"), "trial"])
        / "checkpoint"
    )
    leaves = store.restore().leaves
    store.close()
    start = {
        "params": sweep.start.params,
        "batch_stats": sweep.start.batch_stats,
    }
    changed, optimized = set(), set()
    for name, leaf in leaves.items():
        if not name.startswith("state/"):
            continue
        kind, *path = name.split("/")[1:]
        if kind == "opt_state":
            optimized.add(path[0])
        if kind not in start or path[0] not in start[kind]:
            continue
        tree = start[kind]
        for key in path:
            tree = tree[key]
        if not np.array_equal(leaf, tree):
            changed.add((kind, path[0]))
    assert changed == {
        ("params", "plain_conv"),
        ("params", "res_block2"),
        ("batch_stats", "res_block2"),
    }
    body = {unit.name for unit in sweep.start.network.body}
    assert optimized & body - {"plain_pool"} == {"plain_conv", "res_block2"}


def test_the_part_below_the_lowest_block_is_passed_once(tmp_path, monkeypatch):
    passed, advance = [], cache.advance

    def counted(units, *args, **how):
        passed.extend(unit.name for unit in units)
        return advance(units, *args, **how)

    monkeypatch.setattr(cache, "advance", counted)
    options = {"depths": ("0",), "bn": ("frozen",), "trials_at_once": 1}
    sweep = tiny_sweep(tmp_path, sets=("res_block2+top", "res_block2"), **options)
    outcome = run(sweep, tmp_path)
    assert not outcome.failed
    below = [unit.name for unit in sweep.start.network.body[:4]]
    assert sweep.start.network.body[4].name == "res_block2"
    head_alone = [unit.name for unit in sweep.start.network.body]
    counts = {name: passed.count(name) for name in head_alone}
    # Training and validation images, for the depths and again for the sets.
    assert {counts[name] for name in below} == {4}
    assert counts["res_block2"] == counts["top"] == 2


def test_each_set_has_the_best_of_several_rates(tmp_path):
    options = {"depths": ("0",), "bn": ("frozen",), "lr": "auto", "epochs": 3}
    sweep = tiny_sweep(tmp_path, sets=("mb_block1",), **options)
    run(sweep, tmp_path)
    table = pd.read_csv(tmp_path / "sets.csv")
    assert len(table) == 4 and table["lr"].nunique() == 4
    assert set(table["status"]) <= {"done", "stopped"}
    going = table[table["status"] == "done"]["trial"]
    epochs = {
        trial: records.read_trial(tmp_path, trial)["epochs"] for trial in table["trial"]
    }
    second = {trial: own[1]["val_accuracy"] for trial, own in epochs.items()}
    assert second[max(second, key=second.get)] in {second[trial] for trial in going}
    assert all(
        len(epochs[trial]) == (3 if trial in set(going) else 2) for trial in epochs
    )


def test_ids_tell_sets_from_depths_and_from_each_other(tmp_path):
    sweep = tiny_sweep(tmp_path, sets=("each",), **GRID)
    plan = sweep.plan((*sweep.points, *sweep.set_points))
    blocks = {request.blocks: request.trial for request in plan.requests}
    del blocks[()]
    assert len(blocks) == 7 == len({*blocks.values()})
    ids = {trial.id: trial for trial in plan.trials}
    one = ids[blocks[("mb_block1",)]]
    assert one.canonical["depth"] == ["mb_block1"]
    assert one.describe().startswith("mb_block1 (14 layers)")
    blocks = [point.blocks for point in plan.points if point.policy == "follow"]
    named = [unit.name for unit in sweep.start.network.body if unit.parameter_keys]
    assert blocks == [(), (), *((name,) for name in named)]
    assert sweep.plan(plan.points) == plan


def test_an_unknown_block_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="tiny has no block 'block9'"):
        tiny_sweep(tmp_path, sets=("block9",), **GRID)
