"""One accelerator within ten minutes: steps and a sweep, beside PyTorch.

Each way runs in a process of its own with its own flags of XLA, one after the other, as
they would share the device. Images are drawn, so that nothing is downloaded. PyTorch's
sweep is its steps and passes at each depth, timed, times their number.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import nan
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from experiments.benchmark.measure import Player, make_work, step_flops
from experiments.benchmark.options import Options
from experiments.benchmark.peers import Work
from ftjax.backbones import make_backbone
from ftjax.depth import PAPER_DEPTHS
from ftjax.machine.autotune import LEVEL, TUNED, UNTUNED

IN_ALL = 570.0  # seconds
TURNS = 4  # of steps, the first one with what it compiles
SIZES = {"train_size": 7575, "val_size": 2525}  # Food-101, as in the depth paper
SMALL = {"train_size": 40, "val_size": 20}
TORCH = "pytorch eager"  # ratios are to it


class Way(NamedTuple):
    """How something is computed.

    Attributes:
        name: in the table.
        peer: module of `peers`.
        task: its generator.
        flags: of XLA.
        seconds: after which its process is ended.
    """

    name: str
    peer: str
    task: str
    flags: tuple[str, ...] = ()
    seconds: float = 60.0


STEP_WAYS = (
    Way("ftjax epoch, first algorithm", "ftjax", "epochs", UNTUNED),
    Way(TORCH, "pytorch", "steps"),
    Way("ftjax epoch, convolutions tuned", "ftjax", "epochs", TUNED),
    Way("pytorch compiled", "pytorch", "compiled", seconds=90.0),
    Way("ftjax unit programs", "ftjax", "steps", UNTUNED),
    Way("ftjax epoch, XLA's default", "ftjax", "epochs", (f"{LEVEL}=4",)),
)
SWEEP_WAYS = (
    Way("ftjax sweep", "ftjax", "sweeps", UNTUNED, 150.0),
    Way(TORCH, "pytorch", "estimate", seconds=90.0),
    Way("pytorch compiled", "pytorch", "estimate_compiled", seconds=150.0),
)


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: step, or sweep.
        work: that was done.
        way: by which it was.
        first: seconds of the first step, or of the sweep that compiles.
        seconds: of a later step, or of the sweep again; not a number if there is none.
    """

    what: str
    work: Work
    way: str
    first: float
    seconds: float


def accelerate(options: Options, console: Console) -> int:
    """Measures and prints; returns the exit code: 0, or 1 where nothing was measured.

    Stopped before its end, it prints what it has.
    """
    rows: list[Row] = []
    try:
        for row in measure(options, console):
            rows.append(row)
            console.print(f"{row.what} {describe(row.work)}: {row.way}: {told(row)}")
    except (KeyboardInterrupt, SystemExit):
        console.print("stopped; this is what there is")
    if rows:
        console.print(draw_table(rows))
    return 0 if rows else 1


def measure(options: Options, console: Console) -> Iterator[Row]:
    """All rows that the time suffices for; the most telling ones first."""
    end = time.monotonic() + IN_ALL
    steps, sweep = make_works(options)
    # The sweep of ftjax and of eager PyTorch, then steps, then what takes longest.
    plan = [("sweep", sweep, way) for way in SWEEP_WAYS[:2]]
    plan += [("step", work, way) for work in steps for way in STEP_WAYS]
    plan += [("sweep", sweep, way) for way in SWEEP_WAYS[2:]]
    failed: set[str] = set()
    for what, work, way in plan:
        left = end - time.monotonic()
        if way.peer in failed or left < 5:
            continue
        try:
            turns = play(way, work, min(way.seconds, left))
        except RuntimeError as error:
            console.print(f"{way.name} left out: {error}", markup=False)
            if "ModuleNotFoundError" in str(error):
                failed.add(way.peer)
            continue
        if what == "step":
            first, *others = turns
            later = statistics.median(others) if others else nan
        else:
            first, later = (*turns, nan)[:2]
        yield Row(what, work, way.name, first, later)


def make_works(options: Options) -> tuple[list[Work], Work]:
    """Steps of networks and depths, and the sweep."""
    sizes = SMALL if options.small else SIZES
    steps = []
    for model in options.model:
        total = len(make_backbone(model).layers)
        for depth in options.depths or (total, total // 4):
            steps.append(make_work(options, model, (depth,)))
    model = options.model[0]
    depths = options.depths or PAPER_DEPTHS.get(model, (0, 10, 20, 50))
    epochs = options.epochs or 5
    sweep = make_work(options, model, tuple(depths), epochs=epochs)
    return steps, replace(sweep, **sizes)


def play(way: Way, work: Work, seconds: float) -> list[float]:
    """What a way's process measured until it ended, or its time was over.

    Raises:
        RuntimeError: it measured nothing; says why.
    """
    turns: list[float] = []
    end = time.monotonic() + seconds
    with flags(way.flags):
        player = Player(way.peer, way.task, work)
    try:
        player.ready(seconds)
        while len(turns) < TURNS and (left := end - time.monotonic()) > 0:
            found = player.turn(left)
            if found is None:
                break
            turns.append(found)
    except RuntimeError as error:
        if not turns:
            raise RuntimeError(f"{error}"[:200]) from None
    finally:
        player.close()
    return turns


@contextmanager
def flags(own: tuple[str, ...]) -> Iterator[None]:
    """Within it, processes that start get these flags of XLA beside the user's."""
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = " ".join([before or "", *own]).strip()
    try:
        yield
    finally:
        del os.environ["XLA_FLAGS"]
        if before is not None:
            os.environ["XLA_FLAGS"] = before


def describe(work: Work) -> str:
    """E.g. `effnetb0 224 px, batch 32, depth 237`."""
    depths = " ".join(map(str, work.depths))
    return f"{work.model} {work.image_size} px, batch {work.batch_size}, top {depths}"


def told(row: Row) -> str:
    """Its times in words."""
    again = f"{row.seconds:.4g} s" if row.seconds == row.seconds else "not measured"
    return f"first {row.first:.3g} s, then {again}"


def draw_table(rows: list[Row]) -> Table:
    """All rows, and how many times as fast as eager PyTorch they are."""
    base = {(row.what, row.work): row for row in rows if row.way == TORCH}
    table = Table("What", "Of", "Way")
    for name in ("First s", "Then s", "TFLOP/s", "x eager", "x eager, first"):
        table.add_column(name, justify="right")
    for row in rows:
        eager = base.get((row.what, row.work))
        ratios = ["", ""]
        if eager is not None:
            # PyTorch's sweep has no first one of its own: it is the sum of its parts.
            torch = eager.first if row.what == "sweep" else eager.seconds
            own = row.first if row.seconds != row.seconds else row.seconds
            ratios = [f"{torch / own:.2f}", f"{eager.first / row.first:.2f}"]
        rate = step_flops(row.work) / row.seconds / 1e12 if row.what == "step" else nan
        cells = f"{row.first:.3g}", f"{row.seconds:.4g}", f"{rate:.1f}", *ratios
        cells = ["" if cell == "nan" else cell for cell in cells]
        table.add_row(row.what, describe(row.work), row.way, *cells)
    device = jax.local_devices()[0].device_kind
    table.title = f"{device}, {rows[0].work.dtype}"
    return table
