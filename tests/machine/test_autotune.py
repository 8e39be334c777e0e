"""How convolutions are compiled on a GPU: the verdict for a card, stubbed timers."""

import json
import logging
import subprocess
from types import SimpleNamespace

import pytest

from ftjax.machine import autotune
from ftjax.machine.autotune import (
    LEVEL,
    TUNED,
    UNTUNED,
    Timing,
    choose,
    kept_or_chosen,
    measure_apart,
)

SLOW, FAST = Timing(0.3, 0.5e-3), Timing(2.0, 0.1e-3)


def timer(tuned, untuned=SLOW):
    asked = []

    def measure(flags):
        asked.append(flags)
        found = tuned if flags == TUNED else untuned
        if isinstance(found, OSError):
            raise found
        return found

    return measure, asked


@pytest.mark.parametrize(
    ("tuned", "flags", "why"),
    [
        (FAST, TUNED, "tuned, as that took 0.100 ms a call and 2.0 s to compile"),
        (Timing(60.0, 0.1e-3), UNTUNED, "not tuned"),  # it never pays
        (Timing(2.0, 0.49e-3), UNTUNED, "not tuned"),
        (OSError("no such flag"), UNTUNED, "timing them failed: no such flag"),
    ],
)
def test_the_faster_way_over_a_sweep_is_chosen(tuned, flags, why):
    verdict = choose(timer(tuned)[0])
    assert verdict.flags == flags and why in verdict.why


def test_a_card_is_timed_once_and_that_is_said(tmp_path, caplog):
    path = tmp_path / "new" / "autotune.json"
    measure, asked = timer(FAST)
    first = kept_or_chosen("A", path, measure)
    assert first == kept_or_chosen("A", path, measure)
    assert asked == [UNTUNED, TUNED]
    kept_or_chosen("B", path, measure)
    assert len(asked) == 4 and json.loads(path.read_text()).keys() == {"A", "B"}
    assert "first command on A" in caplog.messages[0]
    assert f"kept in {path}" in caplog.messages[1]
    assert len(caplog.messages) == 4


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"A": {}}', '{"A": {"flags": ["--rm"], "why": ""}}', '{"A": 3}'],
)
def test_a_damaged_verdict_is_timed_again(tmp_path, content):
    path = tmp_path / "autotune.json"
    path.write_text(content)
    measure, asked = timer(FAST)
    assert kept_or_chosen("A", path, measure).flags == TUNED
    assert len(asked) == 2


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "autotune.json"
    assert kept_or_chosen("A", path, timer(FAST)[0]).flags == TUNED
    assert "cannot be written" in caplog.messages[-1]


@pytest.fixture
def card(monkeypatch, tmp_path):
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(autotune, "find_card", lambda: "NVIDIA H200, 570")
    monkeypatch.setattr(autotune, "measure_apart", timer(FAST)[0])
    return monkeypatch


def test_which_flags_a_command_gets(card, caplog):
    caplog.set_level(logging.ERROR)
    assert autotune.gpu_flags() == TUNED
    card.setenv("JAX_PLATFORMS", "cpu")
    assert autotune.gpu_flags() == UNTUNED
    card.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert autotune.gpu_flags() == TUNED
    card.setenv("XLA_FLAGS", f"{LEVEL}=4")  # what the user names stays
    assert autotune.gpu_flags() == UNTUNED
    card.setenv("XLA_FLAGS", "")
    card.setattr(autotune, "find_card", lambda: None)
    assert autotune.gpu_flags() == UNTUNED


def test_no_card_is_looked_for_without_the_plugin(monkeypatch):
    def run(*_, **__):
        raise AssertionError

    monkeypatch.setattr(autotune, "installed", lambda package: False)
    monkeypatch.setattr(subprocess, "run", run)
    assert autotune.find_card() is None


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("said\n[1.5, 0.25]\n", Timing(1.5, 0.25)), ("", None), ("no\n", None)],
)
def test_what_the_process_prints_is_its_timing(monkeypatch, printed, expected):
    found = SimpleNamespace(stdout=printed, stderr="a\nUnknown flag", returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: found)
    if expected is not None:
        assert measure_apart(TUNED) == expected
        return
    with pytest.raises(OSError, match="Unknown flag"):
        measure_apart(TUNED)


def test_a_convolution_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(autotune, "SHAPE", (2, 8, 8, 4))
    autotune.time_convolution()
    compiled, run = json.loads(capsys.readouterr().out)
    assert compiled > 0 and run > 0
