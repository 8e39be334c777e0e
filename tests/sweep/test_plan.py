"""What determines a trial's id, and what it costs."""

import dataclasses
from dataclasses import replace

import pytest
from made_plan import HYPER, at, make_trials

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import boundary_shapes, variable_shapes, with_dtype
from ftjax.backbones.heads import with_head
from ftjax.config import Config
from ftjax.defaults import complete
from ftjax.depth import make_cut
from ftjax.sweep.cost import measure_cost
from ftjax.training.suffix import make_suffix

NETWORK = with_head(make_backbone("tiny"), 3)
BATCH_NORM = at(7, "follow", 0)  # a point whose policy makes a difference


def trial_of(point=BATCH_NORM, network=NETWORK, **options):
    (trial,) = make_trials(network, point, **options)
    return trial


PLAIN = trial_of()
# Every field of a trial and of what it holds, with another value.
OTHERS = {
    "subject.model": {"network": replace(NETWORK, name="other")},
    "subject.weights": {"weights": "imagenet"},
    "subject.data_hash": {"data_hash": "1"},
    "subject.image_size": {"image_size": 32},
    "subject.dtype": {"network": with_dtype(NETWORK, "bfloat16")},
    "cut": {"point": at(18, "follow", 0)},
    "policy": {"point": at(7, "frozen", 0)},
    "seed": {"point": at(7, "follow", 1)},
    "hyper.lr": {"hyper": replace(HYPER, lr=2e-4)},
    "hyper.head_lr_factor": {"hyper": replace(HYPER, head_lr_factor=1.0)},
    "hyper.weight_decay": {"hyper": replace(HYPER, weight_decay=0.1)},
    "hyper.drop_connect": {"hyper": replace(HYPER, drop_connect=0.0)},
    "hyper.optimizer": {"hyper": replace(HYPER, optimizer="sgd")},
    "hyper.batch_size": {"hyper": replace(HYPER, batch_size=16, micro_batch=16)},
    "hyper.micro_batch": {"hyper": replace(HYPER, micro_batch=4)},
    "hyper.head_bias_lr_factor": {"hyper": replace(HYPER, head_bias_lr_factor=1.0)},
    "hyper.momentum": {"hyper": replace(HYPER, optimizer="sgd", momentum=0.5)},
    "hyper.l2": {"hyper": replace(HYPER, l2=1e-4)},
    "hyper.l1": {"hyper": replace(HYPER, l1=1e-4)},
    "hyper.layer_decay": {"hyper": replace(HYPER, layer_decay=0.9)},
    "hyper.schedule": {"hyper": replace(HYPER, schedule="cosine")},
    "hyper.warmup": {"hyper": replace(HYPER, warmup=1.0)},
    "hyper.class_weights": {"hyper": replace(HYPER, class_weights="balanced")},
    "hyper.head": {"hyper": replace(HYPER, head="75")},
    "hyper.head_init": {"hyper": replace(HYPER, head_init="0.01")},
    "hyper.head_start": {"hyper": replace(HYPER, head_start="probe")},
    "hyper.head_lr_layers": {"hyper": replace(HYPER, head="75", head_lr_layers="last")},
    "hyper.label_smoothing": {"hyper": replace(HYPER, label_smoothing=0.1)},
    "hyper.clip": {"hyper": replace(HYPER, clip=1.0)},
    "hyper.augment": {"hyper": replace(HYPER, augment="flip")},
    "hyper.begin": {"hyper": replace(HYPER, begin="0")},
    "hyper.views": {"hyper": replace(HYPER, views="8")},
    "hyper.stop_accuracy": {"hyper": replace(HYPER, stop_accuracy=0.9)},
    "hyper.patience": {"hyper": replace(HYPER, patience=2)},
    "hyper.patience_metric": {"hyper": replace(HYPER, patience_metric="auroc")},
}
# A longer trial goes on from a shorter one; the images stand in the data's hash.
IMAGES = {"hyper.train_size", "hyper.imbalance", "hyper.label_noise"}
SAME = {"hyper.epochs", *IMAGES, "placement", "flops"}


def test_every_field_is_tried():
    fields = {field.name for field in dataclasses.fields(PLAIN)} - {"subject", "hyper"}
    fields |= {f"subject.{name}" for name in PLAIN.subject._fields}
    fields |= {f"hyper.{field.name}" for field in dataclasses.fields(PLAIN.hyper)}
    assert fields == OTHERS.keys() | SAME


@pytest.mark.parametrize("field", OTHERS)
def test_an_id_changes_with_every_field(field):
    assert trial_of(**OTHERS[field]).id != PLAIN.id


def test_ids_of_earlier_versions_stay():
    """Folders that they wrote are resumed."""
    assert PLAIN.canonical == {
        "model": "tiny",
        "weights": "random",
        "data": "0",
        "depth": 7,
        "batch_norm": "follow",
        "seed": 0,
        "image_size": 16,
        "batch_size": 8,
        "optimizer": "adam",
        "lr": 1e-4,
        "head_lr_factor": 10.0,
        "weight_decay": 0.0,
        "drop_connect": 0.2,
        "draws": "numpy",
    }
    assert PLAIN.id == "e618f5685756"
    assert trial_of(hyper=replace(HYPER, epochs=9)).id == PLAIN.id


def test_ids_tell_all_those_settings_apart():
    ids = [trial_of(**options).id for options in OTHERS.values()]
    assert len({PLAIN.id, *ids}) == len(ids) + 1


def test_of_a_linear_head_the_last_layer_is_all_of_it():
    assert trial_of(hyper=replace(HYPER, head_lr_layers="last")).id == PLAIN.id


@pytest.mark.parametrize(("last_only", "count"), [(False, 4), (True, 1)])
def test_which_layers_have_the_factor_of_the_head(last_only, count):
    network = with_head(make_backbone("tiny"), 3, "500d0.5,75")  # with its pooling
    cut = make_cut(network, 7)
    suffix = make_suffix(network, cut, "frozen", last_only=last_only)
    flags = [part.head for part in suffix]
    assert flags == [False] * (len(flags) - count) + [True] * count


def test_of_a_falling_rate_more_epochs_are_another_trial():
    ids = {
        trial_of(hyper=replace(HYPER, schedule="cosine", epochs=epochs)).id
        for epochs in (5, 10)
    }
    assert len(ids) == 2
    # One value that a setting has anyway is no setting.
    same = replace(HYPER, head_bias_lr_factor=HYPER.head_lr_factor, momentum=0.5)
    assert trial_of(hyper=same).id == PLAIN.id


def test_epochs_are_read_off_the_longest():
    hypers = [replace(HYPER, epochs=epochs) for epochs in (2, 5, 3)]
    points = [BATCH_NORM._replace(hyper=hyper) for hyper in hypers]
    (trial,) = make_trials(NETWORK, *points)
    assert trial.hyper.epochs == 5 and trial.id == PLAIN.id


def test_trials_that_share_programs_are_neighbors():
    rates = [replace(HYPER, lr=lr) for lr in (1e-4, 1e-3)]
    sgd = replace(HYPER, optimizer="sgd")
    hypers = [rates[0], sgd, rates[1]]
    trials = make_trials(NETWORK, *(BATCH_NORM._replace(hyper=h) for h in hypers))
    assert [trial.hyper for trial in trials] == [*rates, sgd]


def test_depths_and_policies_that_train_the_same_are_one_trial():
    points = [at(0, policy, 0) for policy in ("follow", "frozen", "recalibrate")]
    assert len(make_trials(NETWORK, *points)) == 1
    assert len(make_trials(NETWORK, at(0, "follow", 0), at(1, "follow", 0))) == 1


def test_accumulation_is_exact_without_batch_statistics():
    point = at(7, "frozen", 0)
    parts = trial_of(point, hyper=replace(HYPER, micro_batch=4))
    assert parts.id == trial_of(point).id


@pytest.mark.parametrize("micro_batch", [3, 16])
def test_a_micro_batch_that_does_not_divide(micro_batch):
    with pytest.raises(ValueError, match=f"{micro_batch} does not divide --batch-size"):
        complete(Config(model="tiny", batch_size=8, micro_batch=micro_batch))


def test_flops_are_those_of_plain_convolutions():
    network, size = make_backbone("vgg16"), 64
    counted = measure_cost(network, size).forward
    shapes = variable_shapes(network.units, size)
    expected = 0
    for own, (height, width, _) in zip(
        shapes[:-1], boundary_shapes(network.units, size)[1:-1], strict=True
    ):
        for layer in own.get("params", {}).values():
            expected += 2 * height * width * layer["kernel"].size
    # Taps that meet padding are not counted by the compiler.
    assert 0.8 * expected < sum(counted[:-1]) < expected
