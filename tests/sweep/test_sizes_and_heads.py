"""Training-set sizes and heads as axes: what they share, and what their trials are."""

import itertools

import numpy as np
import pandas as pd
import pytest
from rounding import rounding
from tiny_sweep import tiny_sweep
from train_tiny import TRAINED, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.frozen import cache
from ftjax.sweep.run import run
from ftjax.training.programs import forward_program

pytestmark = pytest.mark.usefixtures("undrawn")
SETTING = ["train_size", "lr", "depth_layers", "bn"]
TIMES = ["seconds", "compile_seconds"]
GRID = {"depths": ("0", "7"), "bn": ("frozen",)}


def rows_of(out, **options):
    outcome = run(tiny_sweep(out, **(GRID | options)), out)
    assert not outcome.failed
    return outcome.results.drop(columns=TIMES)


def test_cells_are_those_of_separate_commands_and_share_all(tmp_path, monkeypatch):
    passes, advance = [], cache.advance
    monkeypatch.setattr(
        cache, "advance", lambda *args, **how: passes.append(1) or advance(*args, **how)
    )
    sizes, rates = (32, 64), (1e-4, 1e-2)
    alone = [
        rows_of(tmp_path / str(size), train_size=size, lr=rate, epochs=2)
        for size, rate in zip(sizes, rates, strict=True)
    ]
    programs, single = forward_program._cache_size(), len(passes) / len(alone)
    passes.clear()
    grid = rows_of(tmp_path / "grid", train_size=sizes, lr=rates, epochs=(1, 2))
    assert forward_program._cache_size() == programs and len(passes) == single
    assert len(grid) == 16 and grid["trial"].nunique() == 8
    assert grid["data_hash"].nunique() == 2
    expected = pd.concat(alone).sort_values(SETTING, ignore_index=True)
    ends = grid[(grid["epochs"] == 2) & grid["trial"].isin(expected["trial"])]
    ends = ends.sort_values(SETTING, ignore_index=True)
    pd.testing.assert_frame_equal(ends, expected, check_exact=True)


@pytest.mark.slow
def test_a_probe_is_that_of_the_images_that_are_trained_on(tmp_path):
    probe = {"depths": ("0",), "head_start": "probe"}
    both = rows_of(tmp_path / "both", train_size=(32, 64), **probe)
    assert both["val_loss"].nunique() == 2
    alone = rows_of(tmp_path / "32", train_size=32, **probe)
    pd.testing.assert_frame_equal(alone, both[both["train_size"] == 32])


def test_a_batch_is_not_larger_than_the_smallest_set(tmp_path):
    with pytest.raises(ValueError, match="--batch-size 64 is larger than the smallest"):
        tiny_sweep(tmp_path, depths=("0",), train_size=(32, 64), batch_size=64)


def test_trials_of_a_cut_that_share_programs_are_neighbors(tmp_path):
    heads = ("linear", "5d0.5")
    sweep = tiny_sweep(tmp_path, head=heads, lr=(1e-4, 1e-3), drop_connect=(0, 0.2))
    trials = [t for t in sweep.plan().trials if t.cut.depth_layers]
    kinds = [(t.cut.unit, t.hyper.head) for t in trials]
    assert len(trials) >= 8
    assert [kind for kind, _ in itertools.groupby(kinds)] == list(dict.fromkeys(kinds))


def test_a_head_changes_no_program_below_it(tmp_path):
    rows_of(tmp_path / "linear")
    programs = forward_program._cache_size()
    rows_of(tmp_path / "hidden", head=("5d0.5",), head_init=("0.01",))
    assert forward_program._cache_size() == programs + 2  # hidden layer, classifier


@pytest.mark.numeric
def test_dropout_is_the_same_in_whatever_parts(tmp_path):
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 16)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINED + 4, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 4).astype(np.int32)
    made = network, params, stats, images, labels
    settings = {"depth": 3, "policy": "frozen", "optimizer": "sgd", "lr": 1e-3}
    found = {
        (head, size): train_tiny(
            *made, tmp_path / f"{head}-{size}", head=head, micro_batch=size, **settings
        )[0]
        for head, size in (("20d0.5", 8), ("20d0.5", 2), ("20", 8))
    }
    losses = [each.epochs[-1]["train_mode_loss"] for each in found.values()]
    assert losses[1] == pytest.approx(losses[0], rel=rounding(1000))
    assert abs(losses[2] - losses[0]) > 1e-3 * losses[0]
