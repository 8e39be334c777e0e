"""Where trials are trained: in this process, on a Ray cluster, or as a job array.

Elsewhere, a worker trains its shard of each round by the same `run`, and this process
drives: it waits, tells what the folder of the run shows, and decides on the next round.
All of them need that folder, the images and the weights at the same path. What a worker
has begun when it dies goes on from its last epoch, as does all after the driver died.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any

from ftjax.config import Config
from ftjax.sweep.cores import one_core_each
from ftjax.sweep.follow import Part, TrainRound
from ftjax.sweep.prepare import prepare
from ftjax.sweep.process import start_jax
from ftjax.sweep.run import run
from ftjax.sweep.shards import Shard
from ftjax.sweep.strategies import Round, one_round
from ftjax.sweep.work_queue import POLL

LOCAL, RAY, SUBMITIT = "local", "ray", "submitit"
RETRIES = 10  # of a worker that dies; a trial is to blame after two
JOB_MINUTES = 24 * 60


class Worker:
    """Trains shards of a sweep, in a process of its own.

    Args:
        config: completed.
        out: the run's folder.
        folder: that relative paths are of.
    """

    def __init__(self, config: Config, out: Path, folder: str):
        os.chdir(folder)
        config = replace(config, engine=LOCAL, workers=None, job=())
        start_jax(config, own_process=True)
        self._sweep, self._out = one_core_each(prepare(config)), out

    def train(self, shard: str, part: Part) -> None:
        """Trains a shard of a round."""
        sweep = self._sweep._replace(config=replace(self._sweep.config, shard=shard))
        round = Round(sweep.plan(part.points), part.goals, part.stopped)
        run(sweep, self._out, strategy=one_round(round))


def open_engine(config: Config, out: Path) -> AbstractContextManager[TrainRound | None]:
    """What trains the rounds of a sweep elsewhere; None where that is here.

    Args:
        config: completed.
        out: the run's folder.

    Raises:
        ValueError: the engine is not installed, or does not go with other options.
    """
    if config.engine == LOCAL:
        if config.workers or config.job:
            raise ValueError("--workers and --job are of --engine ray and submitit")
        return nullcontext()
    if config.shard or config.distributed or config.budget:
        raise ValueError(
            f"--engine {config.engine} deals out the shards itself: leave --shard, "
            "--distributed and --budget out"
        )
    if find_spec(config.engine) is None:
        raise ValueError(
            f"--engine {config.engine} is not installed: pip install "
            f"'ftjax[{config.engine}]'"
        )
    if (config.workers or 1) < 1:
        raise ValueError(f"--workers {config.workers} must be 1 or more")
    if config.engine == RAY:
        if config.job:
            raise ValueError("--job is of --engine submitit")
        return ray_workers(config, out.resolve())
    if config.workers is None:
        raise ValueError("--engine submitit needs --workers, the size of the job array")
    return submitit_workers(config, out.resolve(), job_parameters(config.job))


@contextmanager
def ray_workers(config: Config, out: Path) -> Iterator[TrainRound]:
    """One actor per device of a Ray cluster: that of RAY_ADDRESS, or one started here.

    Devices are the GPUs that the cluster names, else its TPUs, else its machines.
    """
    ray = import_module("ray")

    own = not ray.is_initialized()
    if own:
        quiet = {"log_to_driver": False, "include_dashboard": False}
        try:
            ray.init(**quiet, logging_level="error")
        except Exception as error:  # a machine that is too busy, or no such address
            raise OSError(f"Ray does not start: {error}") from None
    try:
        there = ray.cluster_resources()
        device = next((kind for kind in ("GPU", "TPU") if there.get(kind)), None)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = sum(node.get("CPU", 0) >= 1 for node in nodes)  # not a bare head
        most = int(there[device or "CPU"])
        count = min(config.workers or (most if device else machines), most)
        # By default actors fill one machine up to half before the next gets any.
        needs: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        if device:
            needs |= {"num_gpus": 1} if device == "GPU" else {"resources": {"TPU": 1}}
        actor = ray.remote(Worker).options(
            max_restarts=RETRIES, max_task_retries=RETRIES, **needs
        )
        folder = os.getcwd()
        actors = [actor.remote(config, out, folder) for _ in range(count)]

        def train_round(part: Part, look: Callable[[], None]) -> None:
            going = [
                each.train.remote(str(Shard(index, count)), part)
                for index, each in enumerate(actors)
            ]
            while going:
                ended, going = ray.wait(going, num_returns=len(going), timeout=POLL)
                look()
                try:
                    ray.get(ended)
                except ray.exceptions.RayError as error:
                    why = getattr(error, "cause", error)
                    raise OSError(f"a worker of --engine ray ended: {why}") from None

        yield train_round
    finally:
        if own:
            ray.shutdown()


@contextmanager
def submitit_workers(
    config: Config, out: Path, parameters: Mapping[str, Any]
) -> Iterator[TrainRound]:
    """A job array of Slurm, or processes of this machine where there is no Slurm.

    A job that Slurm preempts or that reaches its time limit is queued again; one that
    is killed is sent again.
    """
    submitit = import_module("submitit")

    count = config.workers
    executor = submitit.AutoExecutor(folder=out / "jobs")
    executor.update_parameters(
        **{"name": "ftjax", "timeout_min": JOB_MINUTES, **parameters}
    )

    class Job(submitit.helpers.Checkpointable):
        """Trains a shard of a round; queued again as it is."""

        def __call__(self, shard: str, part: Part, folder: str) -> None:
            Worker(config, out, folder).train(shard, part)

    def train_round(part: Part, look: Callable[[], None]) -> None:
        shards = [str(Shard(index, count)) for index in range(count)]
        same = [part] * count, [os.getcwd()] * count
        jobs = dict(zip(shards, executor.map_array(Job(), shards, *same), strict=True))
        left = dict.fromkeys(shards, RETRIES)
        try:
            while jobs:
                sleep(POLL)
                look()
                for shard in [shard for shard, job in jobs.items() if job.done()]:
                    error = jobs.pop(shard).exception()
                    if isinstance(error, submitit.core.utils.UncompletedJobError):
                        left[shard] -= 1
                    elif error is not None:
                        left[shard] = 0
                    if error is not None:
                        if not left[shard]:
                            logs = out / "jobs"
                            raise OSError(
                                f"a job ended in an error; its log is in {logs}"
                            )
                        jobs[shard] = executor.submit(Job(), shard, part, os.getcwd())
        finally:
            for job in jobs.values():
                job.cancel()

    yield train_round


def job_parameters(words: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of submitit from `name=value`; whole numbers are numbers."""
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign):
            raise ValueError(
                f"--job {word} must be name=value as of submitit, e.g. "
                "slurm_partition=gpu gpus_per_node=1 timeout_min=600"
            )
        found[name] = int(value) if value.isdecimal() else value
    return found
