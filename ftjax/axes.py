"""The hyperparameters that a sweep can vary: one table, and the settings it makes.

A new axis is a row here, a field of `Config` and of `Hyperparameters`, and the code
that it acts on.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SGD_MOMENTUM = 0.9  # unless --momentum says otherwise
AUGMENTATIONS = ("flip", "crop", "color", "randaugment", "mixup")  # as they are applied
NO_AUGMENTATION = "none"
FRESH, DEFAULT_VIEWS = "fresh", "4"  # of --views
NO_VIEWS = "none"  # without augmentation
LINEAR, GLOROT = "linear", "glorot"  # of --head and --head-init
AUTO, RANDOM, PROBE = "auto", "random", "probe"  # of --head-start
ALL, LAST = "all", "last"  # of --head-lr-layers
HIDDEN_LAYER = re.compile(r"(\d+)(?:d(\d*\.?\d+))?", re.ASCII)


@dataclass(frozen=True)
class Axis:
    """A hyperparameter, of which `--NAME` takes one value or several.

    Attributes:
        name: of the field of `Config` and `Hyperparameters`, and of the column of
            results.csv.
        title: in a sentence or beside a figure's axis.
        allowed: what the values may be, for a message.
        check: whether a value is allowed.
        log: whether its figure has a logarithmic axis.
        programs: whether another value needs other compiled programs.
        usual: the default of `Config`; an answer says any other value.
        plain: the one spelling of a value that is allowed.
    """

    name: str
    title: str
    allowed: str
    check: Callable[[Any], bool]
    log: bool = False
    programs: bool = False
    usual: Any = None
    plain: Callable[[Any], Any] = lambda value: value

    @property
    def flag(self) -> str:
        """As the command line spells it."""
        return "--" + self.name.replace("_", "-")


def positive(value: float) -> bool:
    """Above zero and finite."""
    return 0 < value < float("inf")


def not_negative(value: float) -> bool:
    """Zero or more, and finite."""
    return 0 <= value < float("inf")


def parse_head(text: str) -> tuple[tuple[int, float], ...] | None:
    """The hidden layers of a head: width, and share of outputs that training drops.

    Args:
        text: `linear` for none, or as `500d0.5,75`.

    Returns:
        One pair per hidden layer; None if the text is no head.
    """
    if text == LINEAR:
        return ()
    found = [HIDDEN_LAYER.fullmatch(word) for word in text.split(",")]
    layers = [(int(m[1]), float(m[2] or 0)) for m in found if m]
    good = len(layers) == len(found) and all(w > 0 and d < 1 for w, d in layers)
    return tuple(layers) if good else None


def plain_head(text: str) -> str:
    """A head in its one spelling: 500d0.50,075 is 500d0.5,75."""
    layers = parse_head(text) or ()
    return ",".join(f"{w}d{d:g}" if d else f"{w}" for w, d in layers) or LINEAR


def parse_init(text: str) -> float | None:
    """Standard deviation of a head's first kernels: 0 for glorot, None if no number."""
    if text == GLOROT:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        return None
    return number if positive(number) else None


def plain_init(text: str) -> str:
    """An initialization in its one spelling: 0.010 is 0.01."""
    return f"{parse_init(text):g}" if parse_init(text) else GLOROT


AXES = (
    Axis("lr", "learning rate", "a positive number", positive, log=True),
    Axis(
        "head_lr_factor",
        "head's rate factor",
        "a positive number",
        positive,
        log=True,
        usual=10.0,
    ),
    Axis(
        "head_bias_lr_factor",
        "rate factor of the head's biases",
        "a positive number",
        positive,
        log=True,
    ),
    Axis(
        "momentum",
        "momentum",
        "in [0, 1)",
        lambda value: 0 <= value < 1,
        usual=SGD_MOMENTUM,
    ),
    Axis("weight_decay", "weight decay", "0 or more", not_negative, usual=0.0),
    Axis("l2", "L2 penalty", "0 or more", not_negative, usual=0.0),
    Axis("l1", "L1 penalty", "0 or more", not_negative, usual=0.0),
    Axis(
        "layer_decay",
        "layer decay",
        "in (0, 1]",
        lambda value: 0 < value <= 1,
        usual=1.0,
    ),
    Axis(
        "drop_connect",
        "drop-connect",
        "in [0, 1)",
        lambda value: 0 <= value < 1,
        usual=0.2,
    ),
    Axis("epochs", "epochs", "1 or more", lambda value: value >= 1),
    Axis(
        "batch_size",
        "batch size",
        "1 or more",
        lambda n: n >= 1,
        log=True,
        programs=True,
        usual=32,
    ),
    Axis(
        "optimizer",
        "optimizer",
        "adam or sgd",
        ("adam", "sgd").__contains__,
        programs=True,
        usual="adam",
    ),
    Axis(
        "schedule",
        "schedule",
        "constant, cosine or one-over-t:TAU",
        lambda text: parse_schedule(text) is not None,
        usual="constant",
    ),
    Axis(
        "label_smoothing",
        "label smoothing",
        "in [0, 1)",
        lambda value: 0 <= value < 1,
        usual=0.0,
    ),
    Axis("clip", "clipping", "0 or more", not_negative, usual=0.0),
    Axis(
        "augment",
        "augmentation",
        f"{NO_AUGMENTATION}, or some of {', '.join(AUGMENTATIONS)} joined by commas",
        lambda text: augmentations(text) is not None,
        programs=True,
        plain=lambda text: ",".join(augmentations(text) or (NO_AUGMENTATION,)),
    ),
    Axis(
        "views",
        "views of an image",
        f"1 or more, or {FRESH}",
        lambda text: text == FRESH or (text.isdecimal() and int(text) >= 1),
        programs=True,
        plain=lambda text: text if text == FRESH else str(int(text)),
    ),
    Axis("train_size", "training images", "1 or more", lambda n: n >= 1, log=True),
    Axis(
        "imbalance",
        "class imbalance",
        "1 or more",
        lambda value: 1 <= value < float("inf"),
        log=True,
        usual=1.0,
    ),
    Axis(
        "label_noise",
        "label noise",
        "in [0, 1)",
        lambda value: 0 <= value < 1,
        usual=0.0,
    ),
    Axis(
        "head",
        "head",
        "linear or widths of hidden layers, as 75 or 500d0.5,75 (dropout in [0, 1))",
        lambda text: parse_head(text) is not None,
        programs=True,
        usual=LINEAR,
        plain=plain_head,
    ),
    Axis(
        "head_init",
        "deviation of the head's first weights",
        "glorot or a positive number",
        lambda text: parse_init(text) is not None,
        usual=GLOROT,
        plain=plain_init,
    ),
    Axis(
        "head_start",
        "head start",
        "auto, random or probe",
        (AUTO, RANDOM, PROBE).__contains__,
        usual=AUTO,
    ),
    Axis(
        "head_lr_layers",
        "layers of the head's rate factor",
        "all or last",
        (ALL, LAST).__contains__,
        programs=True,
        usual=ALL,
    ),
)
NAMES = tuple(axis.name for axis in AXES)


def parse_schedule(text: str) -> tuple[str, float] | None:
    """`constant`, `cosine`, or `one-over-t:TAU` with TAU in epochs; None if neither."""
    name, _, tau = text.partition(":")
    if name in ("constant", "cosine") and not tau:
        return name, 0.0
    try:
        number = float(tau)
    except ValueError:
        return None
    return (name, number) if name == "one-over-t" and positive(number) else None


def augmentations(text: str) -> tuple[str, ...] | None:
    """The words of `flip,crop` in the order of `AUGMENTATIONS`; of `none`, no words.

    Returns:
        None where one is unknown.
    """
    if text == NO_AUGMENTATION:
        return ()
    words = text.split(",")
    known = tuple(word for word in AUGMENTATIONS if word in words)
    return known if set(words) == set(known) else None


def check_axes(values: Mapping[str, Sequence[Any]]) -> None:
    """Refuses values that are not allowed.

    Args:
        values: by name of the axis.

    Raises:
        ValueError: says which, and what is allowed.
    """
    for axis in AXES:
        for value in values[axis.name]:
            if value is not None and not axis.check(value):
                raise ValueError(f"{axis.flag} {value} must be {axis.allowed}")


def settings(
    values: Mapping[str, Sequence[Any]], *, one_by_one: bool = False
) -> Iterator[dict[str, Any]]:
    """The settings that are trained: all combinations, the first values first.

    Args:
        values: of every axis, one at least; equal values count once.
        one_by_one: the first values, and each other value with the first ones of the
            other axes.
    """
    unique = {name: tuple(dict.fromkeys(own)) for name, own in values.items()}
    if not one_by_one:
        for own in itertools.product(*unique.values()):
            yield dict(zip(unique, own, strict=True))
        return
    base = {name: own[0] for name, own in unique.items()}
    yield base
    for name, own in unique.items():
        for value in own[1:]:
            yield {**base, name: value}


def varied(values: Mapping[str, Sequence[Any]]) -> tuple[Axis, ...]:
    """The axes that have several values."""
    return tuple(axis for axis in AXES if len(set(values[axis.name])) > 1)
