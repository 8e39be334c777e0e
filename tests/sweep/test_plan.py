"""What determines a trial's id, and what it costs."""

import pytest

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import boundary_shapes, variable_shapes
from ftjax.backbones.heads import with_head
from ftjax.config import Config, complete
from ftjax.sweep.cost import measure_cost
from ftjax.sweep.plan import Point, make_plan


def ids(policy, **fields):
    """The trial of one point of the grid."""
    config = complete(Config(model="tiny", weights="random", **fields))
    network = with_head(make_backbone("tiny"), 3)
    grid = [Point(7, policy, 0)]
    plan = make_plan(config, network, grid, weights="random", data_hash="0")
    (trial,) = plan.trials
    return trial.id


def test_an_id_changes_with_what_changes_the_result():
    plain = ids("follow", batch_size=8)
    assert ids("follow", batch_size=8, dtype="float32") == plain
    assert ids("follow", batch_size=8, dtype="bfloat16") != plain
    assert ids("follow", batch_size=8, micro_batch=8, mesh="data=2") == plain
    assert ids("follow", batch_size=8, micro_batch=4) != plain


def test_accumulation_is_exact_without_batch_statistics():
    plain = ids("frozen", batch_size=8)
    assert ids("frozen", batch_size=8, micro_batch=4) == plain


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
