"""Activations on disk: reused, checked, within the budget, and without effect."""

import errno
import os
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, rounding

from ftjax.cli.plan_table import placement
from ftjax.config import Config
from ftjax.data import cache
from ftjax.defaults import complete
from ftjax.frozen import cache as module
from ftjax.frozen.placement import Placement
from ftjax.frozen.store import Recipe, Store, load_or_make
from ftjax.sweep import run as sweep
from ftjax.sweep.prepare import prepare

pytest.importorskip("sklearn", reason="needs the extra demo")

OPTIONS = Config(
    model="tiny",
    weights="random",
    data="digits",
    image_size=16,
    batch_size=16,
    train_size=32,
    val_size=20,
    depths=("0", "18"),
    bn=("frozen",),
    epochs=1,
    lr=1e-4,
    replicate=False,
)
ON_DISK = {"cache_gb": 1e-9, "disk_gb": 1.0}


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, tmp_path, monkeypatch):
    """The folder of the store; decoded images are shared by the tests."""
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "own")
    return tmp_path / "own" / "activations"


@pytest.fixture
def computed(monkeypatch):
    """Images that were passed through the frozen part to be stored."""
    seen, outputs = [], module.outputs

    def counted(units, params, batch_stats, x, **options):
        seen.append(len(x))
        return outputs(units, params, batch_stats, x, **options)

    monkeypatch.setattr(module, "outputs", counted)
    return seen


def set_up(**options):
    return prepare(complete(replace(OPTIONS, **options)))


def run(out, **options):
    """Both tables of a run, without the times."""
    outcome = sweep.run(set_up(**options), out)
    assert not outcome.failed
    times = ["seconds", "compile_seconds"]
    tables = outcome.results, outcome.epochs
    return [table.drop(columns=times, errors="ignore") for table in tables]


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.getbasetemp()
        patch.setenv("FTJAX_CACHE", str(base / "cache"))
        tables = run(base / "memory")
        assert not (base / "cache" / "activations").exists()
    return tables


def assert_equal(tables, expected):
    for mine, other in zip(tables, expected, strict=True):
        pd.testing.assert_frame_equal(mine, other, check_exact=True)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_disk_changes_no_number_and_is_reused(
    folder, tmp_path, computed, in_memory
):
    for out in ("first", "second"):
        assert_equal(run(tmp_path / out, **ON_DISK), in_memory)
        assert computed == [32, 20, 32, 20]  # two boundaries, once
    assert len(files(folder)) == 4


def test_what_is_damaged_is_made_again(folder, tmp_path, computed, in_memory):
    run(tmp_path / "first", **ON_DISK)
    computed.clear()
    for path in folder.glob("*-train.npy"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)
    short = next(folder.glob("*-val.npy"))
    short.write_bytes(short.read_bytes()[:-40])
    assert_equal(run(tmp_path / "second", **ON_DISK), in_memory)
    assert sorted(computed) == [20, 32, 32]


def test_other_weights_have_other_files(folder):
    own = set_up(dtype="bfloat16", **ON_DISK)
    roomy = set_up(dtype="bfloat16", cache_gb=1.0).budget.room

    def at(boundary, start=own.start, room=own.budget.room):
        cache = module.ActivationCache(start, own.data, room, batch_size=16)
        return cache.at(Placement(boundary))

    mapped = at(3)
    assert mapped.train.dtype == jnp.bfloat16 and not mapped.train.flags.writeable
    for mine, expected in zip(mapped, at(3, room=roomy), strict=True):
        np.testing.assert_array_equal(mine, expected)
    for unit, count in (("stem", 4), ("top", 4)):  # top comes after the boundary
        leaf = next(leaf for leaf in own.start.digests if leaf[1] == unit)
        digests = {**own.start.digests, leaf: b"other"}
        at(3, own.start._replace(digests=digests))
        assert len(files(folder)) == count


def recipe(value, rows=100):
    struct = jax.ShapeDtypeStruct((rows, 25), np.float32)  # 10 kB
    make = partial(np.full, (1, rows, 25), value, np.float32)
    return Recipe("train", struct, make)


def test_the_budget_holds_and_the_oldest_go_first(folder):
    store = Store(folder, 35_000)
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        load_or_make(store, name, [recipe(ord(name))], in_use="")
        os.utime(folder / f"{name}-train.npy", (1e9 - age, 1e9 - age))
    load_or_make(store, "a", [recipe(0)], in_use="")  # now used last
    load_or_make(store, "d", [recipe(4)], in_use="b")
    assert files(folder) == ["a-train.npy", "b-train.npy", "d-train.npy"]
    with pytest.raises(OSError, match="larger --disk-gb"):
        load_or_make(store, "e", [recipe(5, 300)], in_use="b")
    assert files(folder) == ["a-train.npy", "b-train.npy", "d-train.npy"]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= store.budget


def test_a_killed_commands_rest_is_deleted_one_that_writes_is_left(folder):
    folder.mkdir(parents=True)
    for name, age in (("old", 1e6), ("new", 0)):
        path = folder / f"{name}.partial"
        path.write_bytes(bytes(10_000))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    load_or_make(Store(folder, 25_000), "a", [recipe(1)], in_use="")
    assert files(folder) == ["a-train.npy", "new.partial"]


def test_a_full_disk_costs_time_and_no_number(
    folder, tmp_path, in_memory, monkeypatch, caplog
):
    def full(file, *_):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    assert_equal(run(tmp_path, **ON_DISK), in_memory)
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]
    assert not files(folder)


def test_the_device_changes_no_number(tmp_path, in_memory):
    assert_equal(run(tmp_path, device_gb=1.0, **ON_DISK), in_memory)


@pytest.mark.numeric
@pytest.mark.parametrize("device_gb", [1.0, 0.0])
def test_one_program_for_an_epoch(device_gb, tmp_path, in_memory, caplog):
    bound = rounding(TINY_LAYERS * 16 * 16 * 16)  # sums over the pixels of a batch
    for mine, other in zip(
        run(tmp_path, device_gb=device_gb, fused=True), in_memory, strict=True
    ):
        pd.testing.assert_frame_equal(mine, other, rtol=bound)
    said = [line for line in caplog.messages if "do not fit the device" in line]
    assert bool(said) == (device_gb == 0)


def test_several_processes_have_no_disk():
    with pytest.raises(ValueError, match="--distributed does not go with --disk-gb"):
        set_up(distributed=True, disk_gb=1.0)


@pytest.mark.parametrize(
    "options, place",
    [
        ({}, "memory"),
        (ON_DISK, "disk"),
        ({"cache_gb": 1e-9}, "units recomputed"),
        ({"device_gb": 1.0}, "device"),
    ],
)
def test_the_plan_says_where_activations_are(options, place):
    trials = set_up(**options).plan().trials
    assert all(place in placement(trial) for trial in trials)
