"""The benchmark's bookkeeping; its times are nobody's test."""

import io
import os

import numpy as np
import pytest
from rich.console import Console

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import accelerator, measure
from experiments.benchmark import table as benchmark_table
from experiments.benchmark.options import Options
from experiments.benchmark.peers import Work
from experiments.benchmark.table import (
    Ticks,
    draw,
    machine,
    print_table,
    read_ticks,
    with_ratios,
)

ROW = {"model": "vgg16", "pixels": 32, "batch": 4, "depths": "18"}


def test_ratio_is_over_ftjax_at_the_same_work():
    table = with_ratios(
        [
            {"task": "step", **ROW, "peer": "pytorch", "seconds": 3.0},
            {"task": "step", **ROW, "peer": "ftjax", "seconds": 2.0},
            {"task": "step", **ROW, "depths": "4", "peer": "ftjax", "seconds": 1.0},
            {"task": "step", **ROW, "depths": "4", "peer": "pytorch", "seconds": 5.0},
        ]
    )
    assert list(table.ratio) == [1.5, 1.0, 1.0, 5.0]


def test_ratio_of_growth_is_over_the_smallest():
    rows = [
        {"task": "growth by seeds", **ROW, "size": n, "peer": "ftjax", "seconds": s}
        for n, s in ((1, 2.0), (4, 5.0))
    ]
    assert list(with_ratios(rows).ratio) == [1.0, 2.5]


def test_ratio_is_unknown_where_ftjax_was_not_measured():
    rows = [{"task": "step", **ROW, "peer": "pytorch", "seconds": 3.0}]
    assert with_ratios(rows).ratio.isna().all()


def test_table_and_figure_show_every_row():
    rows = [
        {"task": "grid", **ROW, "peer": "ftjax", "seconds": 2.0, "compilation": 0.5},
        {"task": "grid", **ROW, "peer": "pytorch", "seconds": 7.0, "gflops": 9.0},
    ]
    table = with_ratios(rows).assign(matrix_gflops=100.0)
    out = io.StringIO()
    print_table(table, Console(file=out, width=160))
    assert "3.50" in out.getvalue()
    assert "25%" in out.getvalue()
    assert "9%" in out.getvalue()
    texts = [text.get_text() for text in draw(table).axes[0].texts]
    assert texts == [" 2 s", " 7 s (3.50x)"]


def test_a_framework_that_is_missing_is_left_out():
    out = io.StringIO()
    work = Work("vgg16", 32, 4, (18,))
    found = measure.take_turns(["abacus"], "steps", work, 2, Console(file=out))
    assert found == {}
    assert "abacus left out: ModuleNotFoundError" in out.getvalue()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["step", "--model", "alexnet"], "invalid choice 'alexnet'"),
        (["grid", "--data", "nowhere", "--peers", "ftjax"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys):
    try:
        code = benchmark.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_what_the_host_took_is_a_share_of_all_ticks(tmp_path, monkeypatch):
    path = tmp_path / "stat"
    monkeypatch.setattr(benchmark_table, "PROC_STAT", path)
    assert read_ticks() is None
    path.write_text("cpu  50 0 20 20 0 0 0 10 7 0\ncpu0 1 2 3\n")
    assert read_ticks() == Ticks(100, 10)
    assert machine("float32", Ticks(60, 0))["stolen"] == 0.25
    assert np.isnan(machine("float32")["stolen"])


def small_options(**more):
    usual = {"small": True, "image_size": 16, "batch_size": 4, "epochs": 1}
    return Options("accelerator", ("tiny",), **usual, depths=(3,), **more)


@pytest.mark.usefixtures("cache")
def test_an_accelerator_is_measured_in_processes_of_its_own(monkeypatch):
    """Also where PyTorch is not installed, or does not have the network."""
    steps, sweeps = accelerator.STEP_WAYS, accelerator.SWEEP_WAYS
    monkeypatch.setattr(accelerator, "STEP_WAYS", steps[:1])
    monkeypatch.setattr(accelerator, "SWEEP_WAYS", sweeps[:2])
    out = io.StringIO()
    assert accelerator.accelerate(small_options(), Console(file=out, width=160)) == 0
    said = out.getvalue()
    assert f"{accelerator.TORCH} left out" in said
    (table,) = [part for part in said.split("x eager, first") if "│ step" in part]
    assert "ftjax sweep" in table and "ftjax epoch, first algorithm" in table
    assert "nan" not in table


def test_a_measurement_that_is_stopped_prints_what_there_is(monkeypatch):
    options, seconds = small_options(), {accelerator.TORCH: 0.4, "ftjax epoch": 0.1}
    (work,), _ = accelerator.make_works(options)

    def measured(*_):
        for way, each in seconds.items():
            yield accelerator.Row("step", work, way, 10 * each, each)
        raise SystemExit(143)

    monkeypatch.setattr(accelerator, "measure", measured)
    out = io.StringIO()
    assert accelerator.accelerate(options, Console(file=out, width=160)) == 0
    said = out.getvalue()
    assert "stopped; this is what there is" in said and "4.00" in said


def test_a_way_that_takes_too_long_gives_what_it_had(monkeypatch):
    class Slow:
        """Two turns, then none."""

        def __init__(self, *_):
            self.turns = iter([3.0, 2.0])

        def ready(self, patience):
            assert patience <= 5

        def turn(self, patience):
            found = next(self.turns, None)
            if found is None:
                raise RuntimeError("no answer in 5 s")
            return found

        def close(self):
            pass

    monkeypatch.setattr(accelerator, "Player", Slow)
    (work,), _ = accelerator.make_works(small_options())
    way = accelerator.STEP_WAYS[0]
    assert accelerator.play(way, work, 5.0) == [3.0, 2.0]


def test_flags_are_those_of_the_process_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a")
    with accelerator.flags(("--b", "--c")):
        assert os.environ["XLA_FLAGS"] == "--a --b --c"
    assert os.environ["XLA_FLAGS"] == "--a"
