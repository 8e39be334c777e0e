"""The benchmark's measurements as a table with ratios, and as a figure."""

import statistics
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.benchmark.peers import seconds_of
from ftjax.batch_norm import FOLLOW, FROZEN, RECALIBRATE
from ftjax.machine.describe import describe
from ftjax.report.drawing import MUTED, STYLE, WIDE, look_of, new_figure

COLORS = {
    "ftjax": look_of(FROZEN.name).color,
    "pytorch": look_of(FOLLOW.name).color,
    "keras-jax": look_of(RECALIBRATE.name).color,
    "keras-tensorflow": MUTED,
}


PROC_STAT = Path("/proc/stat")


class Ticks(NamedTuple):
    """Of all cores since the machine started: their number, and those stolen.

    A virtual machine's host gives stolen ticks to others. Frameworks suffer from that
    in different measure, so a ratio is worth most where next to none are.
    """

    total: int
    stolen: int


def read_ticks() -> Ticks | None:
    """None where there is no Linux to say (proc(5), /proc/stat)."""
    try:
        _, *counts = PROC_STAT.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    user_to_steal = [int(count) for count in counts[:8]]  # guests' are in user's
    return Ticks(sum(user_to_steal), user_to_steal[-1])


def machine(dtype: str, before: Ticks | None = None) -> dict[str, object]:
    """Columns that say what was measured on, and how much of it the host took."""
    after, stolen = read_ticks(), float("nan")
    if before and after and after.total > before.total:
        stolen = (after.stolen - before.stolen) / (after.total - before.total)
    return {**describe(), "matrix_gflops": matrix_rate(dtype), "stolen": stolen}


def matrix_rate(dtype: str = "float32", repeats: int = 9) -> float:
    """GFLOP/s of a matrix product; on a CPU the faster of NumPy's and JAX's.

    NumPy's library may be held to an older instruction set than the machine has
    (OPENBLAS_CORETYPE), and then reaches half of it.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = 1024 if on_cpu else 8192
    numbers = np.random.default_rng(0).standard_normal((size, size), np.float32)
    on_device = jnp.asarray(numbers, dtype)
    product = jax.jit(jnp.matmul)
    calls = [lambda: product(on_device, on_device).block_until_ready()]
    if on_cpu and dtype == "float32":  # its threads stay awake for a while: the last
        calls.append(lambda: np.matmul(numbers, numbers))
    medians = []
    for call in calls:
        call()
        medians.append(statistics.median(seconds_of(call) for _ in range(repeats)))
    return 2 * size**3 / min(medians) / 1e9


def with_ratios(rows: list[dict]) -> pd.DataFrame:
    """The rows with seconds over those of ftjax for the same work."""
    table = pd.DataFrame(rows)
    keys = ["task", "model", "depths"]
    ours = table[table.peer == "ftjax"].drop_duplicates(keys).set_index(keys).seconds
    table["ratio"] = [
        row.seconds / ours.get((row.task, row.model, row.depths), float("nan"))
        if not row.task.startswith("growth")
        else float("nan")
        for row in table.itertuples()
    ]
    for _, rows_of_task in table[table.task.str.startswith("growth")].groupby(
        ["task", "model"]
    ):
        table.loc[rows_of_task.index, "ratio"] = (
            rows_of_task.seconds / rows_of_task.seconds.iloc[0]
        )
    return table


def as_seconds(value: float) -> str:
    """Three digits, or all before the point: 0.104, 12.3, 1,012."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_table(table: pd.DataFrame, console: Console) -> None:
    """All rows, one line each."""
    shown = Table("Task", "Model", "Depths", "Size", "Framework")
    for name in ("Seconds", "Ratio", "Compilation", "Of a product"):
        shown.add_column(name, justify="right")
    for row in table.fillna({"size": ""} if "size" in table else {}).itertuples():
        compilation = getattr(row, "compilation", float("nan"))
        reached = getattr(row, "gflops", float("nan")) / row.matrix_gflops
        size = getattr(row, "size", "")
        shown.add_row(
            row.task,
            f"{row.model} {row.pixels} px, batch {row.batch}",
            row.depths,
            "" if size == "" else f"{size:g}",
            row.peer,
            as_seconds(row.seconds),
            f"{row.ratio:.2f}",
            "" if np.isnan(compilation) else f"{compilation / row.seconds:.0%}",
            "" if np.isnan(reached) else f"{reached:.0%}",
        )
    console.print(shown)


@matplotlib.rc_context(STYLE)
def draw(table: pd.DataFrame) -> Figure:
    """Bars of seconds: a group per model and depth, or per size of what grows."""
    keys, varied = ["task", "model", "depths"], "layers unfrozen"
    if "size" in table:
        keys.append("size")
        varied = "size of the sweep"
    groups = list(table.groupby(keys, sort=False))
    names = [name for name in COLORS if (table.peer == name).any()]
    figure = new_figure(
        WIDE,
        1.5 + 0.28 * len(table),
        f"Seconds, less is better; by model and {varied}",
    )
    ax = figure.add_subplot()
    position, ticks, labels = 0.0, [], []
    for key, rows in groups:
        start = position
        for name in names:
            for row in rows[rows.peer == name].itertuples():
                ax.barh(position, row.seconds, 0.9, color=COLORS[name])
                text = f" {as_seconds(row.seconds)} s"
                if row.ratio == row.ratio and row.peer != "ftjax":
                    text += f" ({row.ratio:.2f}x)"
                ax.text(row.seconds, position, text, va="center", fontsize=8)
                position += 1
        ticks.append((start + position - 1) / 2)
        task, model, depths, *size = key
        axis = task.removeprefix("growth by ")
        labels.append(f"{model}, {size[0]:g} {axis}" if size else f"{model}, {depths}")
        position += 0.6
    ax.set_yticks(ticks, labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.25)
    for name in names:
        ax.barh([0], [0], color=COLORS[name], label=name)
    figure.legend(loc="outside lower left", ncols=len(names))
    return figure
