"""Which settings a sweep trains."""

import pytest

from ftjax.axes import AXES, NAMES, check_axes, parse_schedule, settings, varied
from ftjax.config import RATES, Config, axis_values, to_json
from ftjax.defaults import complete

TINY = {"model": "tiny", "weights": "random", "depths": ("0", "9")}
ONE = {"lr": (1e-4,), "l2": (0.0,), "epochs": (5,)}


def test_all_combinations_or_one_at_a_time():
    values = {"lr": (1e-4, 1e-3), "l2": (0.0, 1e-4, 1e-4), "epochs": (5,)}
    assert len(list(settings(values))) == 4
    one = list(settings(values, one_by_one=True))
    assert [(s["lr"], s["l2"]) for s in one] == [(1e-4, 0), (1e-3, 0), (1e-4, 1e-4)]
    assert list(settings(ONE)) == [{"lr": 1e-4, "l2": 0.0, "epochs": 5}]


def test_every_axis_is_an_option_with_a_value_that_is_allowed():
    values = axis_values(complete(Config(**TINY)))
    assert tuple(values) == NAMES
    check_axes(values)
    assert [axis.name for axis in varied(values)] == ["lr"]
    assert values["lr"] == RATES


def test_what_is_usual_is_the_default():
    values = axis_values(complete(Config(**TINY)))
    usual = {axis.name: axis.usual for axis in AXES if axis.usual is not None}
    assert len(usual) >= 9
    assert usual == {name: values[name][0] for name in usual}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, RATES),
        ({"lr": (1e-3,)}, (1e-3,)),
        ({"lr": 1e-3}, (1e-3,)),
        ({"depths": ("auto",)}, (1e-4,)),
        ({"search": "halving"}, (1e-4,)),
        ({"lr": (1e-4, 0.0001, 1e-3)}, (1e-4, 1e-3)),  # equal ones are one
    ],
)
def test_the_rate_is_tuned_unless_a_search_or_the_user_says_otherwise(
    options, expected
):
    assert axis_values(complete(Config(**{**TINY, **options})))["lr"] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": (0.0,)}, "--lr 0.0 must be a positive number"),
        ({"lr": (float("nan"),)}, "--lr nan must be a positive number"),
        ({"momentum": (1.0,), "optimizer": ("sgd",)}, r"--momentum 1.0 must be in \[0"),
        ({"momentum": (0.5,)}, "--momentum is of --optimizer sgd"),
        ({"optimizer": ("lion",)}, "--optimizer lion must be adam or sgd"),
        ({"schedule": ("linear",)}, "--schedule linear must be constant, cosine or"),
        ({"layer_decay": (0.0,)}, r"--layer-decay 0.0 must be in \(0, 1\]"),
        ({"epochs": (5, 0)}, "--epochs 0 must be 1 or more"),
        ({"head": ("75,x",)}, "--head 75,x must be linear or widths of hidden"),
        ({"head": ("500d1.5",)}, "--head 500d1.5 must be linear or .*dropout in"),
        ({"head": ("0",)}, "--head 0 must be linear"),
        ({"head_init": ("-1",)}, "--head-init -1 must be glorot or a positive number"),
        (
            {"head_start": ("zeros",)},
            "--head-start zeros must be auto, random or probe",
        ),
        (
            {"lr": 1e-4, "head": ("linear", "75"), "head_start": "probe"},
            "--head-start probe is a linear head; it does not go with --head linear 75",
        ),
        ({"train_size": (0, 500)}, "--train-size 0 must be 1 or more"),
        ({"warmup": -1.0}, "--warmup -1.0 must be 0 or more"),
        (
            {"depths": ("auto",), "l2": (0, 1)},
            "several values of --lr and --bn, not of --l2",
        ),
        ({"lr": "auto", "l2": (0, 1)}, "--lr auto does not go with several .* --l2"),
        (
            {"lr": 1e-4, "batch_size": (8, 12), "micro_batch": 8},
            "--micro-batch 8 does not divide --batch-size 12",
        ),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        complete(Config(**{**TINY, **options}))


def test_equal_values_count_once():
    config = complete(
        Config(
            **TINY,
            lr=1e-4,
            head=("75", "075", "500d0.50,75d0"),
            head_init=("0.01", "1e-2"),
            train_size=(50, 20, 50),
        )
    )
    assert config.head == ("75", "500d0.5,75") and config.head_init == ("0.01",)
    assert config.train_size == (50, 20)


def test_a_record_of_single_values_is_as_in_earlier_versions():
    saved = to_json(complete(Config(**TINY, lr=1e-4)))
    assert saved["lr"] == 1e-4 and saved["epochs"] == 5 and saved["optimizer"] == "adam"


def test_schedules_by_name():
    assert parse_schedule("constant") == ("constant", 0)
    assert parse_schedule("one-over-t:2.5") == ("one-over-t", 2.5)
    for text in ("cosine:1", "one-over-t", "one-over-t:0", "one-over-t:x", ""):
        assert parse_schedule(text) is None
    assert {axis.name for axis in AXES if axis.programs} == {
        "batch_size",
        "optimizer",
        "augment",
        "views",
        "head",
        "head_lr_layers",
    }
