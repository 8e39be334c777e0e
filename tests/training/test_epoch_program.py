"""An epoch as a few programs: the numbers of unit programs, and what it takes."""

import re
import threading
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, adam_drift, rounding
from tiny_run import interrupt_after, run, table
from train_tiny import TRAINED, on_device, train_tiny

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.sweep import trials
from ftjax.training.epoch_program import epoch_program
from ftjax.trees import total_bytes

LOSSES = ("loss", "val_loss", "train_mode_loss")
DOUBLE = rounding(TINY_LAYERS * 8 * 16 * 16, "float64")
# Two epochs of two steps, at the head's rate.
ADAM = adam_drift(4, 1e-2 * 10, DOUBLE)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tiny():
    network = with_head(make_backbone("tiny"), 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINED + 4, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, TRAINED + 4).astype(np.int32)
    trees = jax.tree.map(np.float32, init(network.units, 0, 16))
    return network, *trees, images, labels


@pytest.fixture
def double(tiny):
    """In float64, where rounding is far below what a wrong formula would change."""
    network, *trees, images, labels = tiny
    with jax.enable_x64(True):
        trees = jax.tree.map(np.float64, trees)
        yield with_dtype(network, "float64"), *trees, images, labels


def losses(trained):
    return [[epoch[name] for name in LOSSES] for epoch in trained.epochs]


SHALLOW = {"depth": 7, "optimizer": "sgd"}
# Stacked seeds in parts, under follow: `test_a_fused_epoch_equals_its_steps`.
FORMS = {
    "frozen": {"depth": 18, "policy": "frozen", "optimizer": "sgd", "clip": 0.1},
    "recalibrate": {"depth": 18, "policy": "recalibrate", "boundary": 5},
    "recalibrate seeds": {**SHALLOW, "policy": "recalibrate", "seeds": (2, 3)},
    "stored views": {**SHALLOW, "augment": "flip,mixup", "views": "2"},
    "views made": {**SHALLOW, "augment": "crop,mixup", "views": "2", "boundary": 0},
    "fresh views": {**SHALLOW, "augment": "color,mixup", "views": "fresh"},
    "dropout": {**SHALLOW, "depth": 0, "head": "8d0.5", "schedule": "cosine"},
    "probe": {**SHALLOW, "depth": 0, "head_start": "probe"},
}
# Seeds, frozen units that run again, and another start: each is in a form beside these.
JOINED = ("recalibrate seeds", "views made", "probe")


@pytest.mark.numeric
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in JOINED else ())
        for name in FORMS
    ],
)
def test_it_has_the_numbers_of_unit_programs(double, tmp_path, name):
    train = partial(train_tiny, *double, **FORMS[name])
    units = train(tmp_path / "units")
    programs = train(tmp_path / "programs", form=on_device, fused=True)
    for mine, other in zip(programs, units, strict=True):
        np.testing.assert_allclose(losses(mine), losses(other), rtol=ADAM)
        np.testing.assert_array_equal(mine.correct, other.correct)
        for path, leaf in other.state.items():
            limit = ADAM * max(abs(leaf).max(initial=0), 1)
            np.testing.assert_allclose(
                mine.state[path], leaf, rtol=0, atol=limit, err_msg=path
            )


class Taken(NamedTuple):
    """Of one epoch, by the thread that trains.

    Attributes:
        programs: names of those that were called.
        transfers: names of calls that move arrays.
    """

    programs: list[str]
    transfers: list[str]


@pytest.fixture
def epochs(monkeypatch):
    """What every epoch takes; in it only transfers that are asked for are allowed."""
    pjit = pytest.importorskip("jax._src.pjit")
    pxla = pytest.importorskip("jax._src.interpreters.pxla")
    if not hasattr(pjit, "_get_fastpath_data"):
        pytest.skip("this JAX does not let calls of programs be counted")
    found, own = [], threading.current_thread()

    def count(place, name, kind):
        call = getattr(place, name)

        def counted(*args, **kwargs):
            if found and threading.current_thread() is own:
                label = args[0].name if kind == "programs" else name
                getattr(found[-1], kind).append(label)
            return call(*args, **kwargs)

        monkeypatch.setattr(place, name, counted)

    jax.clear_caches()
    monkeypatch.setattr(pjit, "_get_fastpath_data", lambda *_: None)  # all by Python
    count(pxla.ExecuteReplicated, "__call__", "programs")
    for name in ("device_put", "device_get"):
        count(jax, name, "transfers")
    draw, look = trials.plan_epoch, trials.look_by_programs

    def plan_epoch(*args):
        found.append(Taken([], []))
        return draw(*args)

    def guarded(*args):
        with jax.transfer_guard("disallow"):
            return look(*args)

    monkeypatch.setattr(trials, "plan_epoch", plan_epoch)
    monkeypatch.setattr(trials, "look_by_programs", guarded)
    yield found
    jax.clear_caches()


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "recalibrate", "boundary": 2, "micro_batch": 4},
        {"policy": "frozen", "augment": "flip,mixup", "views": "fresh"},
        {"policy": "frozen", "seeds": (0, 1), "schedule": "cosine"},
    ],
    ids=("recalibrate", "fresh views", "seeds"),
)
def test_an_epoch_is_four_calls_and_one_fetch(tiny, tmp_path, epochs, options):
    settings = {**SHALLOW, **options, "epochs": 3}
    train_tiny(*tiny, tmp_path, form=on_device, fused=True, **settings)
    first, second, last = epochs
    assert first.programs == second.programs
    assert len(second.programs) <= 4
    assert second.transfers == ["device_put", "device_get"]
    # After the last one the training set is measured, and the state is recorded.
    assert sum("evaluation_program" in name for name in last.programs) == 2


def test_the_guard_refuses_a_transfer_that_nobody_asked_for():
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed"):
        jax.jit(jnp.sin)(np.ones(3, np.float32))


def test_a_step_of_unit_programs_is_counted_as_well(tiny, tmp_path, epochs):
    train_tiny(*tiny, tmp_path, **SHALLOW, epochs=2)
    assert len(epochs[0].programs) > 20


class Called(BaseException):
    """What the program of an epoch was called with."""


def call_types(tiny, out, depth):
    """Static and other arguments of the program of an epoch, in bfloat16."""

    def stop(step, *args):
        raise Called(step, *map(types_of, args))

    network, *others = tiny
    own = with_dtype(network, "bfloat16"), *others
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Called) as called:
        patch.setattr("ftjax.sweep.epochs.epoch_program", stop)
        train_tiny(*own, out, form=on_device, fused=True, depth=depth, epochs=1)
    return called.value.args


def types_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_the_state_is_written_over(tiny, tmp_path):
    called = call_types(tiny, tmp_path, 7)
    compiled = epoch_program.lower(*called).compile()
    aliased = compiled.memory_analysis().alias_size_in_bytes
    assert aliased >= total_bytes(called[2]) > 0


def test_accelerators_get_bfloat16_and_arrays_as_they_lie(tiny, tmp_path):
    traced = epoch_program.trace(*call_types(tiny, tmp_path, 59))
    for platform in ("cuda", "tpu"):
        lowered = traced.lower(lowering_platforms=(platform,))
        lines = lowered.as_text().splitlines()
        convolutions = [line for line in lines if "stablehlo.convolution" in line]
        assert len(convolutions) > 50  # three for each of tiny's
        for line in convolutions:
            assert not re.search("x(f32|f64)>", line), line
        assert not [line for line in lines if "all_reduce" in line]
        for line in lines:
            if "stablehlo.transpose" in line:  # of a matrix: the head's kernel
                assert re.search(r": \(tensor<\d+x\d+x\w+>\)", line), line


def test_a_killed_trial_goes_on_with_the_same_bits(tiny, tmp_path):
    settings = {**SHALLOW, "policy": "recalibrate", "form": on_device, "fused": True}
    train = partial(train_tiny, *tiny, **settings)
    (whole,) = train(tmp_path / "whole", epochs=3)
    train(tmp_path / "parts", epochs=1)
    (parts,) = train(tmp_path / "parts", epochs=3)
    assert parts.state.keys() == whole.state.keys()
    for name, leaf in whole.state.items():
        np.testing.assert_array_equal(parts.state[name], leaf, err_msg=name)
    assert str(losses(parts)[1:]) == str(losses(whole)[1:])


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_keeps_the_newest_epoch_of_a_state_that_is_written_over(
    images, tmp_path, monkeypatch
):
    words = "--depths 7 --bn follow --epochs 4 --fused --device-gb 1".split()
    assert run(images, tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        assert run(images, tmp_path / "parts", *words) == 130
    assert run(images, tmp_path / "parts", *words) == 0
    expected, found = (table(tmp_path / name) for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(found, expected)
