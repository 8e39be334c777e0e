"""How XLA:CPU is told to compile and run."""

import os

import jax
import pytest

from ftjax.machine import xla
from ftjax.machine.threads import POOL_SIZE


@pytest.fixture
def untuned(monkeypatch):
    """No flags, no number of threads, and both as they were afterwards."""
    for name in ("XLA_FLAGS", POOL_SIZE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(xla, "usable_cores", lambda: 4)
    return monkeypatch


def test_flags_of_the_user_stay(untuned):
    untuned.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256 --xla_dump_to=x")
    xla.tune_xla()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[-2:] == ["--xla_cpu_prefer_vector_width=256", "--xla_dump_to=x"]
    names = [flag.split("=")[0] for flag in flags]
    assert len(set(names)) == len(names)
    assert "--xla_cpu_parallel_codegen_split_count=2" in flags
    assert POOL_SIZE not in os.environ


@pytest.mark.parametrize(
    ("jaxlib", "fusions", "width"),
    [
        ("0.10.2", True, True),
        ("0.11.0", False, True),
        ("0.12.0.1", False, True),
        ("0.13.0.dev20270101", False, False),
    ],
)
def test_xla_gets_flags_that_it_knows(untuned, jaxlib, fusions, width):
    """It ends the process at one that is gone."""
    untuned.setattr(xla, "version", lambda _: jaxlib)
    xla.tune_xla()
    flags = os.environ["XLA_FLAGS"].split()
    assert ("--xla_cpu_use_fusion_emitters=false" in flags) == fusions
    assert ("--xla_cpu_prefer_vector_width=512" in flags) == width


@pytest.mark.parametrize(("devices", "threads"), [(1, 4), (2, 4), (8, 16)])
def test_forced_devices_have_two_threads_each(untuned, devices, threads):
    forced = f"--xla_force_host_platform_device_count={devices}"
    untuned.setenv("XLA_FLAGS", forced)
    xla.give_devices_threads()
    assert os.environ[POOL_SIZE] == str(threads)


def test_who_has_chosen_the_number_of_threads_keeps_it(untuned):
    untuned.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    untuned.setenv(POOL_SIZE, "3")
    xla.give_devices_threads()
    assert os.environ[POOL_SIZE] == "3"
