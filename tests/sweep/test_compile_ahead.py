"""Programs are compiled before a sweep trains: all that it calls, and no others."""

import threading

import jax
import pytest
from tiny_sweep import tiny_sweep

from ftjax.frozen.cache import ActivationCache
from ftjax.frozen.placement import Placement
from ftjax.sweep import compile_ahead as module
from ftjax.sweep.compile_ahead import compile_threads
from ftjax.sweep.run import run

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """Grows with every program that is compiled: its name, and the thread's."""
    programs = []

    def listen(event, duration, *, fun_name="", **_):
        if event == COMPILED:
            programs.append((fun_name, threading.current_thread().name))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


def make_sweep(tmp_path, **options):
    """Depths that cut units, both policies, drop-connect, batches in two parts."""
    usual = {
        "depths": ("0", "5", "18"),
        "bn": ("follow", "frozen"),
        "batch_size": 16,
        "micro_batch": 8,
        "drop_connect": 0.2,
        "trials_at_once": 2,
    }
    return tiny_sweep(tmp_path, **(usual | options))


def compile_ahead(sweep, threads):
    trials = sweep.plan().trials
    return module.compile_ahead(sweep.start, sweep.data, sweep.budget, trials, threads)


@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_is_left_to_compile(tmp_path, compiled, parts, monkeypatch):
    sweep = make_sweep(tmp_path, micro_batch=16 // parts)
    run(sweep, (tmp_path / "first"))  # small programs, between the units
    jax.clear_caches()
    monkeypatch.setattr("ftjax.sweep.compile_ahead._compiled", set())
    del compiled[:]
    with compile_ahead(sweep, 2) as ready:
        ready()
    assert len(compiled) > 10 and len({thread for _, thread in compiled}) == 2
    del compiled[:]
    run(sweep, (tmp_path / "second"))
    assert {name for name, _ in compiled} <= {"jit(add_trees)"}


def test_one_thread_and_stacked_trials_compile_as_they_go(tmp_path, compiled):
    sweep = make_sweep(tmp_path)
    del compiled[:]
    with compile_ahead(sweep, 1) as ready:
        ready()
    stacked = make_sweep(tmp_path, seeds=2, seeds_at_once=2)
    del compiled[:]
    with compile_ahead(stacked, 2) as ready:
        ready()
    assert compiled == []


def test_the_pass_to_the_first_cut_need_not_wait_for_the_rest(
    tmp_path, compiled, monkeypatch
):
    sweep = make_sweep(tmp_path, depths=("0", "5"))
    go = threading.Event()

    def held(*_):
        yield "held", lambda: go.wait(30)

    monkeypatch.setattr("ftjax.sweep.compile_ahead.training_tasks", held)
    monkeypatch.setattr("ftjax.sweep.compile_ahead._compiled", set())
    with compile_ahead(sweep, 2) as ready:
        del compiled[:]
        boundary = min(trial.placement.boundary for trial in sweep.plan().trials)
        assert boundary > 0
        room = sweep.budget.room
        cache = ActivationCache(sweep.start, sweep.data, room, batch_size=8)
        cache.at(Placement(boundary))
        assert "jit(infer_unit)" not in {name for name, _ in compiled}
        waiting = threading.Thread(target=ready)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        go.set()
        waiting.join(30)
        assert not waiting.is_alive()


def test_who_stops_does_not_wait_for_what_is_not_begun(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path)
    go, begun = threading.Event(), []

    def held(*_):
        for number in range(20):
            yield number, lambda number=number: (begun.append(number), go.wait(30))

    monkeypatch.setattr("ftjax.sweep.compile_ahead.training_tasks", held)
    with pytest.raises(KeyboardInterrupt):
        with compile_ahead(sweep, 2):
            threading.Timer(0.3, go.set).start()
            raise KeyboardInterrupt
    assert len(begun) < 20


@pytest.mark.parametrize(
    ("backend", "cores", "expected"), [("cpu", 16, 2), ("gpu", 16, 8), ("gpu", 2, 2)]
)
def test_the_host_of_an_accelerator_compiles_with_its_cores(
    monkeypatch, backend, cores, expected
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr("ftjax.sweep.compile_ahead.usable_cores", lambda: cores)
    assert compile_threads(2) == expected


def test_where_an_epoch_is_a_program_the_frozen_part_is_compiled_alone(
    tmp_path, compiled, monkeypatch
):
    monkeypatch.setattr("ftjax.sweep.compile_ahead._compiled", set())
    jax.clear_caches()
    sweep = make_sweep(tmp_path, fused=True, device_gb=1.0)
    del compiled[:]
    with compile_ahead(sweep, 2) as ready:
        ready()
    names = {name for name, thread in compiled if thread != "MainThread"}
    assert "jit(infer_unit)" in names
    assert not {name for name in names if "forward" in name or "finish" in name}
