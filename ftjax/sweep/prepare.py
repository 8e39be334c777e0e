"""All that a sweep needs, loaded and checked; nothing is trained."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ftjax.axes import NO_AUGMENTATION, NO_VIEWS, settings
from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import with_dtype
from ftjax.backbones.heads import with_head
from ftjax.batch_norm import find_policy
from ftjax.block_sets import make_set_cut, parse_sets
from ftjax.config import ONE, Config, axis_values
from ftjax.data import SOURCES, Dataset, load
from ftjax.data.index import Source
from ftjax.depth import AUTO, parse_depths
from ftjax.frozen.placement import make_room
from ftjax.frozen.start import Start, make_start
from ftjax.machine import devices
from ftjax.machine.devices import Device
from ftjax.machine.mesh import DATA, VARIANT, axis_size, make_mesh, replicate
from ftjax.sweep.cost import measure_cost
from ftjax.sweep.devices import choose_spread
from ftjax.sweep.memory import (
    available_bytes,
    check_memory,
    device_room,
    host_bytes,
    host_room,
)
from ftjax.sweep.plan import Plan, Point, make_plan
from ftjax.sweep.resources import Budget, needed_memory
from ftjax.sweep.trial import Hyperparameters, Trial
from ftjax.weights.pretrained import load_pretrained


class Sweep(NamedTuple):
    """What `run` trains: the command's configuration, loaded and checked.

    Attributes:
        config: completed.
        start: the pretrained network.
        data: images at the network's size.
        budget: of the machine.
        points: of the grid; empty where a search chooses them.
    """

    config: Config
    start: Start
    data: Dataset
    budget: Budget
    points: tuple[Point, ...]

    @property
    def num_images(self) -> int:
        """Of both splits."""
        return len(self.data.train.labels) + len(self.data.val.labels)

    def plan(self, points: Iterable[Point] | None = None) -> Plan:
        """The trials of some points; of the whole grid by default."""
        points = self.points if points is None else points
        return make_plan(self.start, self.data, self.budget, points)

    @property
    def set_points(self) -> tuple[Point, ...]:
        """The points of `--sets`."""
        network, config = self.start.network, self.config
        sets = parse_sets(network, config.sets)
        own = itertools.product(
            config.bn, seeds_of(config), make_settings(config), sets
        )
        return tuple(
            Point(make_set_cut(network, point[-1]).depth_layers, *point)
            for point in own
        )

    @property
    def hyper(self) -> Hyperparameters:
        """The first of the settings."""
        return make_settings(self.config)[0]


def prepare(config: Config, source: Source | None = None) -> Sweep:
    """Loads weights and images and makes the plan; nothing is trained.

    Args:
        config: completed.
        source: the images, where they are in memory and `config.data` names none.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    hypers = make_settings(config)
    mesh = make_mesh(config.mesh, hypers[0].micro_batch)
    if mesh is not None and (config.trials_at_once or 1) > 1:
        raise ValueError(
            f"--trials-at-once {config.trials_at_once} takes a single device; leave it "
            "out, or choose --mesh data=1"
        )
    at_once = seeds_at_once(config, mesh)
    backbone = make_backbone(config.model)
    depths = () if config.depths == AUTO else parse_depths(backbone, config.depths)
    parse_sets(backbone, config.sets)
    pretrained = load_pretrained(
        backbone, config.weights, size=config.image_size, offline=config.offline
    )
    data = load(
        config.data,
        source=source,
        data_dir=config.data_dir,
        image_size=config.image_size,
        train_size=config.train_size,
        val_size=config.val_size,
        test_size=config.test_size,
        strict=config.strict,
        classes=config.classes,
        with_test=config.data not in SOURCES,
    )
    check_batch_size(data, hypers)
    for policy in config.bn:
        find_policy(policy)
    network = with_dtype(with_head(backbone, len(data.class_names)), config.dtype)
    if not any(unit.batch_norm_keys for unit in network.units):
        config = replace(config, bn=config.bn[:1])  # the policies would be one curve
    size = config.image_size
    start = make_start(
        network,
        size,
        pretrained.params,
        pretrained.batch_stats,
        weights=pretrained.source,
        mesh=mesh,
    )
    cpu = jax.default_backend() == "cpu"
    room = make_room(
        network,
        size,
        len(data.train.labels) + len(data.val.labels),
        measure_cost(network, size).forward,
        memory=host_room(host_bytes(), cpu=cpu)
        if config.cache_gb is None
        else config.cache_gb * 1e9,
        disk=config.disk_gb * 1e9,
        device=(config.device_gb or 0) * 1e9 if mesh is None else 0,
        train_share=len(data.train.labels)
        / (len(data.train.labels) + len(data.val.labels)),
    )
    fused = config.fused or (mesh is None and not cpu and config.device_gb != 0)
    budget = Budget(room, mesh, at_once, config.trials_at_once, fused)
    grid = itertools.product(depths, config.bn, seeds_of(config), hypers)
    points = tuple(itertools.starmap(Point, grid))
    sweep = Sweep(config, start, data, budget, points)
    if config.mesh == "auto" and mesh is None:
        sweep = spread(sweep, devices.local_devices())
    if config.device_gb is None and sweep.budget.mesh is None and not cpu:
        sweep = with_device_room(sweep, available_bytes())
    check_plan(sweep, sweep.plan((*points, *sweep.set_points)))
    return sweep


def spread(sweep: Sweep, own: Sequence[Device]) -> Sweep:
    """The sweep over all devices of this process: a trial for each, or shared batches.

    Args:
        sweep: on the default device.
        own: the devices of this process.
    """
    if len(own) == 1:
        return sweep
    trials, images = sweep.plan().trials, sweep.hyper.micro_batch
    needed, available = needed_bytes(sweep, trials), available_bytes()
    chosen = choose_spread(
        devices=len(own),
        trials=len(trials) if sweep.points else None,
        images=images,
        fits=available is None or needed <= available,
        cpu=jax.default_backend() == "cpu",
    )
    if chosen.sharing == 1:
        budget = sweep.budget._replace(devices=tuple(own), why=chosen.why)
        return sweep._replace(budget=budget)
    mesh, start = make_mesh(f"{DATA}={chosen.sharing}", images), sweep.start
    trees = jax.device_get((start.params, start.batch_stats))
    params, batch_stats = replicate(trees, mesh)
    room = sweep.budget.room._replace(device=0)
    return sweep._replace(
        start=start._replace(params=params, batch_stats=batch_stats),
        budget=sweep.budget._replace(
            room=room, mesh=mesh, why=chosen.why, fused=sweep.config.fused
        ),
    )


def with_device_room(sweep: Sweep, available: int | None) -> Sweep:
    """The sweep with the memory of a device for activations that its trials leave.

    Args:
        sweep: whose activations are on the host as yet.
        available: bytes of one device; None if nobody knows.
    """
    trials = sweep.plan().trials or sweep.plan(deepest(sweep)).trials
    room = device_room(available, needed_bytes(sweep, trials))
    budget = sweep.budget
    return sweep._replace(
        budget=budget._replace(room=budget.room._replace(device=room))
    )


def deepest(sweep: Sweep) -> list[Point]:
    """The trial that needs most, where a search has yet to choose."""
    layers = len(sweep.start.network.layers)
    return [Point(layers, policy, 0, sweep.hyper) for policy in sweep.config.bn]


def needed_bytes(sweep: Sweep, trials: Sequence[Trial]) -> int:
    """Least memory of the largest trial; 0 where there are none yet."""
    if not trials:
        return 0
    return sum(needed_memory(sweep.start, sweep.budget, trials, sweep.num_images))


def check_batch_size(data: Dataset, hypers: Sequence[Hyperparameters]) -> None:
    """Raises ValueError if a training set is smaller than a batch."""
    largest = max(hyper.batch_size for hyper in hypers)
    sizes = {
        kind: len(data.chosen(*kind).rows)
        for kind in dict.fromkeys(hyper.images for hyper in hypers)
    }
    kind = min(sizes, key=sizes.__getitem__)
    if sizes[kind] < largest:
        which = "smallest " if len(sizes) > 1 else ""
        left = f" that --imbalance {kind[1]:g} leaves" if kind[1] != 1 else ""
        raise ValueError(
            f"--batch-size {largest} is larger than the {which}training set of "
            f"{sizes[kind]} images{left}"
        )


def check_plan(sweep: Sweep, plan: Plan) -> None:
    """Raises ValueError if the largest trials need more memory than there is."""
    if not plan.trials:
        return
    budget, at_once = sweep.budget, sweep.budget.trials_at_once or 1
    largest = max((trial.hyper for trial in plan.trials), key=lambda h: h.micro_batch)
    check_memory(
        needed_memory(sweep.start, budget, plan.trials, sweep.num_images, at_once),
        available_bytes(),
        batch_size=largest.batch_size,
        micro_batch=largest.micro_batch,
        devices=axis_size(budget.mesh, DATA),
        at_once=at_once,
    )


def seeds_of(config: Config) -> range:
    """The seeds that every depth is trained with."""
    return range(config.first_seed, config.first_seed + config.seeds)


def make_settings(config: Config) -> tuple[Hyperparameters, ...]:
    """The hyperparameters of every setting that the command names, the base first."""
    values = axis_values(config)
    patience_metric = (config.patience and config.metric) or "accuracy"
    made = (
        Hyperparameters(
            **without_views(setting),
            micro_batch=config.micro_batch or setting["batch_size"],
            warmup=config.warmup,
            class_weights=config.class_weights,
            stop_accuracy=config.stop_accuracy,
            patience=config.patience,
            patience_metric=patience_metric,
        )
        for setting in settings(values, one_by_one=config.vary == ONE)
    )
    return tuple(dict.fromkeys(made))


def without_views(setting: Mapping[str, Any]) -> Mapping[str, Any]:
    """A setting, which has no views where nothing is augmented."""
    plain = setting["augment"] == NO_AUGMENTATION
    return {**setting, "views": NO_VIEWS} if plain else setting


def seeds_at_once(config: Config, mesh: Mesh | None) -> int:
    """How many seeds are trained at once.

    Raises:
        ValueError: the devices cannot share them equally.
    """
    axis = axis_size(mesh, VARIANT)
    count = axis if config.seeds_at_once is None else config.seeds_at_once
    if count % axis:
        raise ValueError(
            f"--seeds-at-once {count}: the {axis} devices of --mesh {config.mesh} "
            f"cannot share them equally; use a multiple of {axis}"
        )
    if axis > config.seeds:
        raise ValueError(
            f"--mesh {config.mesh} spreads seeds over {axis} devices, but there are "
            f"{config.seeds}; use --seeds {axis} or more"
        )
    return min(count, config.seeds - config.seeds % axis)
