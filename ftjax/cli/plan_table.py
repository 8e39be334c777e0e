"""`--plan`: what a sweep will take, printed before anything is trained."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from ftjax.analysis.wording import duration
from ftjax.axes import FRESH
from ftjax.block_sets import set_name
from ftjax.config import HALVING
from ftjax.frozen.placement import Room, begun_bytes
from ftjax.sweep.cost import measure_cost, trainable_params
from ftjax.sweep.devices import last_end
from ftjax.sweep.forecast import measure_rates, passed_flops, views_cost
from ftjax.sweep.memory import available_bytes, count_programs
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.resources import (
    Budget,
    largest_trials,
    needed_memory,
    trials_at_once,
)
from ftjax.sweep.trial import Trial

CHOICES = (1, 4, 8)  # numbers of views whose cost is told


def print_forecast(sweep: Sweep, console: Console) -> float | None:
    """FLOPs, memory and seconds of every trial, after a calibration on one batch.

    Returns:
        Seconds in all, compilation included; None where a search has yet to decide.
    """
    config, start, data, budget, _ = sweep
    trials = sweep.plan((*sweep.points, *sweep.set_points)).trials
    if not trials:
        console.print("--depths auto decides after the first trials what to train")
        return None
    rates = measure_rates(start, data, budget, trials)
    network, size = start.network, start.image_size
    cost = measure_cost(network, size)
    table = Table("Layers", "Blocks", "BN", "Seed", "Parameters", "Stored before", "In")
    for name in ("GB", "TFLOP", "Seconds"):
        table.add_column(name, justify="right")
    total = passed = passed_flops(budget.room, trials)
    seconds = passed / rates.inference
    for trial in trials:
        boundary, begin, _ = trial.placement
        room = budget.room.with_views(trial.hyper.stored_views)
        stored = room.stored(boundary)
        if begin:
            images = round(sweep.num_images * room.copies)
            stored = begun_bytes(network, size, images, boundary, begin)
        flops, took = trial.flops.total(trial.hyper.epochs), rates.seconds(trial)
        total += flops
        seconds += took
        table.add_row(
            str(trial.cut.depth_layers),
            set_name(trial.cut.blocks) or str(trial.cut.depth_units),
            trial.policy,
            str(trial.seed),
            f"{trainable_params(network, trial.cut, cost):,}",
            f"{network.units[boundary].name} {begin}".strip(),
            placement(trial),
            f"{stored / 1e9:.2f}",
            f"{flops / 1e12:.2f}",
            f"{took:.0f}",
        )
    console.print(table)
    programs = count_programs(start, trials)
    timed = count_programs(start, largest_trials(trials)[:1])
    compiling = rates.compile_seconds * programs / timed
    count = trials_at_once(start, budget, trials, sweep.num_images)
    memory = needed_memory(start, budget, trials, sweep.num_images, count)
    available = available_bytes()
    limit = f" of {available / 1e9:.1f}" if available else ""
    most = "at most, as halving stops some: " if config.search == HALVING else ""
    lines = [
        f"{most}{total / 1e12:.1f} TFLOP in all, {passed / 1e12:.1f} of them once for "
        "the frozen part",
        f"about {duration(seconds + compiling)} in all: {duration(seconds)} of "
        f"training and {duration(compiling)} to compile {programs} programs of single "
        f"units (measured on one batch: training {rates.train / 1e9:.1f}, inference "
        f"{rates.inference / 1e9:.1f} GFLOP/s; {timed} programs compiled in "
        f"{rates.compile_seconds:.0f} s)",
        f"memory: at least {sum(memory) / 1e9:.2f}{limit} GB: parameters "
        f"{memory.params / 1e9:.2f}, optimizer {memory.optimizer / 1e9:.2f}, "
        f"for the backward pass {memory.residuals / 1e9:.2f}, stored activations "
        f"{memory.stored / 1e9:.2f}",
    ]
    lines += views_lines(budget.room, trials)
    lines.append(room_line(budget.room, fused=budget.fused))
    lines += device_lines(budget, count, [rates.seconds(trial) for trial in trials])
    if count > 1 and not budget.devices:
        lines.append(
            f"{count} trials side by side (--trials-at-once); the seconds are those "
            "of one after the other"
        )
    at_once = budget.seeds_at_once
    if at_once > 1:
        gain = measure_rates(start, data, budget, trials, at_once).train / rates.train
        lines.append(
            f"{at_once} seeds at once: {gain:.2f} times the speed of one by one"
        )
    if budget.fused:
        fused = measure_rates(start, data, budget, trials, fused=True)
        lines.append(
            f"fused: {fused.train / rates.train:.2f} times the speed of single units; "
            f"the largest program compiled in {fused.compile_seconds:.0f} s, and each "
            "depth and policy has its own"
        )
    for line in lines:
        console.print(line)
    return seconds + compiling


def room_line(room: Room, *, fused: bool) -> str:
    """Where activations may be, and how an epoch is run there."""
    parts = [f"{room.device / 1e9:.1f} GB of the device"] if room.device else []
    parts.append(f"{room.memory / 1e9:.1f} GB of the host's memory (--cache-gb)")
    parts += [f"{room.disk / 1e9:.1f} GB of disk (--disk-gb)"] if room.disk else []
    form = "; where they are on the device, an epoch is a few programs"
    return f"activations: up to {', then '.join(parts)}{form if fused else ''}"


def device_lines(budget: Budget, count: int, seconds: Sequence[float]) -> Iterator[str]:
    """How trials and devices meet, and why.

    Args:
        budget: of the machine.
        count: trials side by side.
        seconds: of every trial, the longest first.
    """
    if budget.mesh is not None and budget.why:
        yield (
            f"{budget.mesh.size} devices share every batch, because {budget.why}; "
            "--mesh data=1 takes one"
        )
    if not budget.devices:
        return
    end, total = last_end(seconds, count), sum(seconds)
    yield (
        f"{len(budget.devices)} devices: {count} trials side by side, each on one "
        f"device, the longest first, because {budget.why}: {duration(end)} of training "
        f"instead of {duration(total)}, if the devices share nothing (--mesh data=N: "
        "they share every batch)"
    )


def views_lines(room: Room, trials: Sequence[Trial]) -> Iterator[str]:
    """For each augmentation, what the choices of `--views` cost."""
    for augment in dict.fromkeys(t.hyper.augment for t in trials if t.hyper.words):
        own = [trial for trial in trials if trial.hyper.augment == augment]
        asked = {trial.hyper.views: trial.hyper.stored_views for trial in own}
        own = [trial for trial in own if trial.hyper.views == next(iter(asked))]
        counts = sorted({*CHOICES, *asked.values()} - {0})
        costs = []
        for name, views in (*zip(counts, counts, strict=True), (FRESH, 0)):
            stored, passed, again = views_cost(room, own, views)
            parts = [f"{stored / 1e9:.2f} GB"] if stored else []
            parts += [f"{passed / 1e12:.2f} TFLOP once"] if passed else []
            parts += [f"{again / 1e12:.2f} TFLOP in the steps"] if again else []
            costs.append(f"{name}: {', '.join(parts) or 'nothing'}")
        yield f"--views of {augment} add to the frozen part: {'; '.join(costs)}"


def placement(trial: Trial) -> str:
    """Where a trial's activations are, and how many units are run again from there."""
    boundary, _, where = trial.placement
    if trial.hyper.fresh and trial.cut.unit:
        return f"{where}; all units recomputed in training"
    again = trial.cut.unit - boundary
    if not again:
        return where
    recomputed = f"{again} unit{'s' * (again > 1)} recomputed"
    return f"{where}, {recomputed}" if boundary else recomputed
