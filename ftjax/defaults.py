"""Defaults that depend on the model or other options, and the check of all values."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ftjax.axes import (
    AXES,
    DEFAULT_VIEWS,
    FRESH,
    LINEAR,
    NAMES,
    NO_AUGMENTATION,
    PROBE,
    SGD_MOMENTUM,
    check_axes,
    varied,
)
from ftjax.config import AUTO_RATE, FIXED_RATE, HALVING, RATES, Config, as_tuple, flag
from ftjax.machine.paths import expand_user

# The pairs of the depth paper (Philip 2025, section 4); other models run on digits.
PAPER_DATA = {"resnet152": "cifar10", "vgg16": "stanford_dogs", "effnetb0": "food101"}
PAPER_EPOCHS = {"resnet152": 5, "vgg16": 10, "effnetb0": 5}
DTYPES = ("float32", "bfloat16", "auto")
DIGITS_SIZE = 32  # pixels; the images are 8x8, so more shows nothing more


def complete(config: Config) -> Config:
    """Fills in the defaults that depend on the model, and checks every number.

    Raises:
        ValueError: a value is out of range; the message says what is allowed.
    """
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    import jax

    from ftjax.backbones import make_backbone
    from ftjax.depth import AUTO
    from ftjax.machine.capability import device_type

    backbone = make_backbone(config.model)
    data = config.data or PAPER_DATA.get(config.model, "digits")
    data = str(expand_user(data)) if data.startswith("~") else data
    weights = config.weights
    weights = str(expand_user(weights)) if weights.startswith("~") else weights
    size = config.image_size
    if size is None:
        small = data == "digits" and config.model != "tiny"
        small = small and backbone.smallest_size <= DIGITS_SIZE
        size = DIGITS_SIZE if small else backbone.native_size
    if size < backbone.smallest_size:
        raise ValueError(
            f"--image-size {size} is too small for {config.model}: it takes "
            f"{backbone.smallest_size} pixels or more"
        )
    if size > 1024:
        raise ValueError(f"--image-size {size} is too large: 1024 pixels at most")
    config = with_axes(config)
    if config.first_seed < 0:
        raise ValueError(f"--first-seed {config.first_seed} must be 0 or more")
    counts = "seeds", "micro_batch", "val_size", "test_size", "patience"
    for name in (*counts, "seeds_at_once", "trials_at_once"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{flag(name)} {value} is too small: 1 or more")
    if config.stop_accuracy is not None and not 0 < config.stop_accuracy <= 1:
        raise ValueError(
            f"--stop-accuracy {config.stop_accuracy} must be a share in (0, 1], "
            "e.g. 0.995"
        )
    for batch_size in config.batch_size:
        if config.micro_batch and batch_size % config.micro_batch:
            raise ValueError(
                f"--micro-batch {config.micro_batch} does not divide --batch-size "
                f"{batch_size}"
            )
    dtype = config.dtype
    if dtype not in DTYPES:
        raise ValueError(f"unknown --dtype {dtype}; it takes {', '.join(DTYPES)}")
    if dtype == "auto":
        dtype = device_type(jax.local_devices()[0])
    if config.cache_gb is not None and not 0 < config.cache_gb < float("inf"):
        raise ValueError(f"--cache-gb {config.cache_gb} must be a positive number")
    if config.search not in (None, HALVING):
        raise ValueError(
            f"unknown search {config.search!r}; --search takes {HALVING}; "
            "a search over depths is --depths auto"
        )
    if config.search and config.depths == AUTO:
        raise ValueError(
            "--search halving needs all depths from the start; it does not go with "
            "--depths auto: name the depths, or use units"
        )
    if config.first_seed and config.depths == AUTO:
        raise ValueError(
            "--first-seed does not go with --depths auto, whose seeds begin at 0"
        )
    if config.distributed and (config.probes or config.search):
        raise ValueError(
            "--distributed takes neither --probes nor --search: they run in one process"
        )
    if config.distributed and config.disk_gb:
        raise ValueError(
            "--distributed does not go with --disk-gb: every process would need the "
            "same files; leave --disk-gb out"
        )
    if config.budget is not None:
        parse_time(config.budget)
        if config.search or config.distributed:
            raise ValueError(
                "--budget does not go with --search halving or --distributed; it takes "
                "a grid, --lr auto, or --depths auto"
            )
    for name in ("disk_gb", "device_gb", "warmup"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"{flag(name)} {value} must be 0 or more")
    default_depths = ("paper",) if config.model in PAPER_DATA else ("spread",)
    out = config.out or Path("runs") / f"{config.model}-{Path(data).name}"
    data_dir = config.data_dir
    return replace(
        config,
        data=data,
        data_dir=None if data_dir is None else expand_user(data_dir),
        weights=weights,
        image_size=size,
        dtype=dtype,
        depths=config.depths or default_depths,
        bn=tuple(dict.fromkeys(config.bn)),
        out=expand_user(out),
    )


def with_axes(config: Config) -> Config:
    """Fills in the default rate and epochs, and checks the values of every axis.

    Raises:
        ValueError: a value is not allowed, or goes with no other option.
    """
    epochs = as_tuple(config.epochs) or (PAPER_EPOCHS.get(config.model, 5),)
    searches = config.depths == ("auto",) or config.search or config.distributed
    lr = config.lr
    if lr is None:
        paper = not config.depths and config.model in PAPER_DATA
        fixed = searches or paper or config.depths == ("paper",)
        lr = (FIXED_RATE,) if fixed else AUTO_RATE
    values = {name: as_tuple(getattr(config, name)) for name in NAMES}
    values |= {"epochs": epochs, "lr": RATES if lr == AUTO_RATE else as_tuple(lr)}
    check_axes(values)
    for axis in AXES:
        own = values[axis.name]
        values[axis.name] = as_tuple([v if v is None else axis.plain(v) for v in own])
    check_views(values)
    if values["augment"] != (NO_AUGMENTATION,):
        values["views"] = values["views"] or (DEFAULT_VIEWS,)
    several = [axis.flag for axis in varied(values)]
    if config.depths == ("auto",) and (others := set(several) - {"--lr"}):
        raise ValueError(
            f"--depths auto takes several values of --lr and --bn, not of "
            f"{' and '.join(sorted(others))}: give one, or name the depths"
        )
    if (config.search or config.distributed) and several:
        raise ValueError(
            f"{' and '.join(several)}: several values do not go with --search or "
            "--distributed; give one, or leave these out"
        )
    if values["optimizer"] == ("adam",) and values["momentum"] != (SGD_MOMENTUM,):
        raise ValueError("--momentum is of --optimizer sgd; adam has its own")
    if PROBE in values["head_start"] and values["head"] != (LINEAR,):
        raise ValueError(
            f"--head-start {PROBE} is a linear head; it does not go with --head "
            f"{' '.join(values['head'])}: leave out one of them"
        )
    if lr == AUTO_RATE:
        if several != ["--lr"]:
            others = " and ".join(flag for flag in several if flag != "--lr")
            raise ValueError(
                f"--lr auto does not go with several values of {others}: give rates"
            )
        values["lr"] = AUTO_RATE
    return replace(config, **values)


def check_views(values: Mapping[str, tuple]) -> None:
    """Refuses views that go with no augmentation, or not with other options.

    Args:
        values: of every axis, as they were given.

    Raises:
        ValueError: says which.
    """
    augment, views = values["augment"], values["views"]
    if augment == (NO_AUGMENTATION,) and views:
        raise ValueError(
            f"--views {' '.join(views)} needs --augment: without it all views of an "
            "image are the same"
        )
    mixed = any("mixup" in text for text in augment)
    if mixed and values["imbalance"] != (1,):
        raise ValueError(
            "mixup takes in any training image, also those that --imbalance leaves "
            "out; leave one of the two out"
        )
    if mixed and views != (FRESH,) and len(values["train_size"]) > 1:
        raise ValueError(
            "stored views of mixup are of one --train-size, whose images they mix; "
            "choose --views fresh, or one size"
        )


def parse_time(text: str) -> float:
    """Seconds of 90s, 30m or 2h.

    Raises:
        ValueError: it is none of these, or not positive.
    """
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--budget {text} must be a time such as 90s, 30m or 2h")
    return seconds
