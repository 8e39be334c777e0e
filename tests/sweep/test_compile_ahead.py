"""Programs are compiled before a sweep trains: all that it calls, and no others."""

import threading

import jax
import pytest
from tiny_setup import tiny_setup

from ftjax.frozen.cache import RollingCache
from ftjax.sweep import run as sweep
from ftjax.sweep.compile_ahead import compile_ahead, compile_threads

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


def make_setup(tmp_path, **options):
    """Depths that cut units, both policies, drop-connect, batches in two parts."""
    usual = {
        "depths": ("0", "5", "18"),
        "bn": ("follow", "frozen"),
        "batch_size": 16,
        "micro_batch": 8,
        "drop_connect": 0.2,
        "trials_at_once": 2,
    }
    return tiny_setup(tmp_path, **(usual | options))


@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_is_left_to_compile(tmp_path, compiled, parts, monkeypatch):
    setup = make_setup(tmp_path, micro_batch=16 // parts)
    list(sweep.run(setup, tmp_path / "first"))  # small programs, between the units
    jax.clear_caches()
    monkeypatch.setattr("ftjax.sweep.compile_ahead._compiled", set())
    del compiled[:]
    with compile_ahead(setup, setup.plan.trials, 2) as ready:
        ready()
    assert len(compiled) > 10 and len({thread for _, thread in compiled}) == 2
    del compiled[:]
    list(sweep.run(setup, tmp_path / "second"))
    assert {name for name, _ in compiled} <= {"jit(add_trees)"}


def test_one_thread_and_stacked_trials_compile_as_they_go(tmp_path, compiled):
    setup = make_setup(tmp_path)
    del compiled[:]
    with compile_ahead(setup, setup.plan.trials, 1) as ready:
        ready()
    stacked = make_setup(tmp_path, seeds=2, seeds_at_once=2)
    del compiled[:]
    with compile_ahead(stacked, stacked.plan.trials, 2) as ready:
        ready()
    assert compiled == []


def test_the_pass_to_the_first_cut_need_not_wait_for_the_rest(
    tmp_path, compiled, monkeypatch
):
    setup = make_setup(tmp_path, depths=("0", "5"))
    go = threading.Event()

    def held(*_):
        yield "held", lambda: go.wait(30)

    monkeypatch.setattr("ftjax.sweep.compile_ahead.training_tasks", held)
    monkeypatch.setattr("ftjax.sweep.compile_ahead._compiled", set())
    with compile_ahead(setup, setup.plan.trials, 2) as ready:
        del compiled[:]
        boundary = min(setup.boundaries.values())
        assert boundary > 0
        RollingCache(setup).at(boundary)
        assert "jit(infer_unit)" not in {name for name, _ in compiled}
        waiting = threading.Thread(target=ready)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        go.set()
        waiting.join(30)
        assert not waiting.is_alive()


def test_who_stops_does_not_wait_for_what_is_not_begun(tmp_path, monkeypatch):
    setup = make_setup(tmp_path)
    go, begun = threading.Event(), []

    def held(*_):
        for number in range(20):
            yield number, lambda number=number: (begun.append(number), go.wait(30))

    monkeypatch.setattr("ftjax.sweep.compile_ahead.training_tasks", held)
    with pytest.raises(KeyboardInterrupt):
        with compile_ahead(setup, setup.plan.trials, 2):
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
