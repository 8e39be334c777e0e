"""ftjax' own part: the step of `ftjax.train` and the sweep of `ftjax.sweep`."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.peers import (
    STEPS,
    Work,
    made_images,
    random_batch,
    seconds_of,
)
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.config import Config
from ftjax.data import index
from ftjax.data.arrays import NAME, open_arrays
from ftjax.defaults import complete
from ftjax.depth import make_cut
from ftjax.frozen.forward import infer
from ftjax.machine import xla
from ftjax.machine.clock import compile_seconds
from ftjax.machine.heap import keep_freed_memory
from ftjax.sweep.cores import one_core_each
from ftjax.sweep.prepare import prepare
from ftjax.sweep.run import run
from ftjax.training.batches import Source, Step
from ftjax.training.epoch_program import Draws, copies, epoch_program
from ftjax.training.optimizer import Hyper
from ftjax.training.step import Batch, init_state, train_step
from ftjax.training.suffix import make_suffix

EPOCH_STEPS = 16  # of a turn of `epochs`


def start() -> None:
    """As the command starts, but no program of an earlier run is used."""
    xla.tune_xla()
    keep_freed_memory()
    xla.collect_garbage_rarely()
    jax.config.update("jax_enable_compilation_cache", False)


def steps(work: Work) -> Iterator[float]:
    """Steps on the stored inputs of the cut's unit, as in every epoch of a sweep.

    A sweep leaves out the frozen steps of that unit as well, where memory allows.
    """
    start()
    network = with_dtype(with_head(make_backbone(work.model), 10), work.dtype)
    params, stats = init(network.units, 0, work.image_size)
    cut = make_cut(network, work.depths[0])
    suffix = make_suffix(network, cut, "follow")
    state = init_state(suffix, params, stats, optimizer="adam")
    images, labels = random_batch(work)
    x = infer(network[: cut.unit], params, stats, jax.device_put(images))
    y = jax.device_put(labels)
    hyper = Hyper(jnp.float32(1e-4), jnp.float32(10), jnp.float32(0))

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, metrics = train_step(
                suffix, state, [Batch(x, y)], hyper, optimizer="adam"
            )
        jax.block_until_ready((state, metrics))

    yield seconds_of(lambda: run(1))
    while True:
        yield seconds_of(lambda: run(STEPS)) / STEPS


def epochs(work: Work) -> Iterator[float]:
    """As `steps`, all of a turn as the program of an epoch."""
    start()
    network = with_dtype(with_head(make_backbone(work.model), 10), work.dtype)
    params, stats = init(network.units, 0, work.image_size)
    cut = make_cut(network, work.depths[0])
    suffix = make_suffix(network, cut, "follow")
    state = init_state(suffix, params, stats, optimizer="adam")
    (state,) = copies(state)  # the program writes over it
    images, labels = random_batch(work)
    x = infer(network[: cut.unit], params, stats, jax.device_put(images))
    hyper = Hyper(jnp.float32(1e-4), jnp.float32(10), jnp.float32(0))
    source = Source(x, jax.device_put(labels), {}, {}, hyper)
    rows = np.tile(np.arange(work.batch_size, dtype=np.int32), (EPOCH_STEPS, 1))
    kind = Step(suffix, (), "adam", 1, None, None)
    draws = jax.device_put(Draws(rows, {}))

    def run() -> None:
        nonlocal state
        state, metrics = epoch_program(kind, source, state, draws)
        jax.block_until_ready((state, metrics))

    yield seconds_of(run)
    while True:
        yield seconds_of(run) / EPOCH_STEPS


def sweeps(work: Work) -> Iterator[float]:
    """A sweep that compiles, and the same again, on images that are drawn."""
    start()
    drawn = made_images(work)
    train, val = (
        (drawn[f"{name}_images"], drawn[f"{name}_labels"]) for name in ("train", "val")
    )
    source = open_arrays(train, val)
    for _ in range(2):
        seconds, *_ = sweep(replace(work, data=NAME), source)
        yield seconds


def grid(work: Work) -> Iterator[float]:
    """A sweep of the product, in one turn: it may train several depths side by side.

    Yields:
        Seconds in all; those of compilation; those of each trial, the deepest first.
    """
    start()
    yield from sweep(work)


def sweep(work: Work, source: index.Source | None = None) -> Iterator[float]:
    """What `grid` yields.

    Args:
        work: that is done.
        source: the images, where `work.data` does not name them.
    """
    clock = time.perf_counter()
    compiled = compile_seconds()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config = Config(
            model=work.model,
            weights="random",
            data=work.data,
            data_dir=Path(work.data_dir) if work.data_dir else None,
            depths=tuple(map(str, work.depths)),
            bn=("follow",),
            seeds=work.seeds,
            epochs=work.epochs,
            image_size=work.image_size,
            batch_size=work.batch_size,
            dtype=work.dtype,
            train_size=work.train_size,
            val_size=work.val_size,
            lr=1e-4,
            drop_connect=0.0,
            replicate=False,
            out=out,
        )
        outcome = run(one_core_each(prepare(complete(config), source)), out)
        for event in outcome.failed.values():
            raise RuntimeError(event.message)
        results = outcome.results
        yield time.perf_counter() - clock
    yield compile_seconds() - compiled
    results = results.sort_values("depth_layers", ascending=False)
    yield from results["seconds"] + results["compile_seconds"]
