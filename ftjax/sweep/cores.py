"""A core of its own for each trial that runs side by side with others.

XLA:CPU spreads every larger loop over a pool of threads that all trials share, and
they wait for each other's halves. With a pool of one thread, each computes in the
thread that calls it: of two trials of EfficientNetB0 (96 pixels, batch 32) side by
side on two cores a step takes 0.118 s instead of 0.133. A trial that is left alone
takes 0.180 s instead of 0.133, so that is for plans that keep all cores busy to the
end.
"""

import os
from collections.abc import Iterable

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.extend.backend import clear_backends

from ftjax.config import HALVING
from ftjax.machine.mesh import replicate
from ftjax.machine.threads import POOL_SIZE, usable_cores
from ftjax.machine.xla import choose_dispatch
from ftjax.sweep.devices import last_end
from ftjax.sweep.prepare import Sweep
from ftjax.sweep.resources import trials_at_once

UNEVEN = 1.1  # last end over mean end of the workers, above which a shared pool is best


def one_core_each(sweep: Sweep) -> Sweep:
    """The sweep, after JAX was started anew with one thread if that pays.

    The plan alone decides, whatever of it is done: rounding depends on the number of
    threads, and a sweep that is resumed ends with the numbers of one that was not. All
    other JAX arrays of the process are lost, so that is for commands, not for
    notebooks.
    """
    if not pays(sweep):
        return sweep
    start = sweep.start
    trees = jax.device_get((start.params, start.batch_stats))
    os.environ[POOL_SIZE] = "1"
    choose_dispatch()
    clear_backends()
    programs = jax.config.jax_compilation_cache_dir
    if programs:  # those of several threads are others
        jax.config.update("jax_compilation_cache_dir", os.path.join(programs, "1core"))
        compilation_cache.reset_cache()
    params, batch_stats = replicate(trees, None)
    return sweep._replace(start=start._replace(params=params, batch_stats=batch_stats))


def pays(sweep: Sweep) -> bool:
    """Whether there is a trial for each core, nearly to the end."""
    trials = sweep.plan().trials
    count = trials_at_once(sweep.start, sweep.budget, trials, sweep.num_images)
    if count < 2 or count != usable_cores() or POOL_SIZE in os.environ:
        return False
    if jax.default_backend() != "cpu" or sweep.budget.devices:
        return False
    if sweep.config.search == HALVING:
        return False
    flops = [trial.flops.total(trial.hyper.epochs) for trial in trials]
    return bool(flops) and unevenness(flops, count) <= UNEVEN


def unevenness(costs: Iterable[float], workers: int) -> float:
    """When the last of some workers ends, over when they would on average.

    Args:
        costs: of what they do; who is free takes the next.
        workers: how many.
    """
    costs = list(costs)
    return last_end(costs, workers) * workers / sum(costs)
