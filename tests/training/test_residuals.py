"""What a unit's forward pass keeps for the way back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.backbones import make_backbone
from ftjax.backbones.backbone import init
from ftjax.backbones.heads import with_head
from ftjax.depth import make_cut
from ftjax.frozen.forward import infer
from ftjax.training.programs import backward_unit, forward_program, forward_unit
from ftjax.training.suffix import make_suffix


def test_what_a_unit_was_given_is_not_copied_for_the_way_back():
    network = make_backbone("tiny")
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for unit in network.units:
        variables = jax.eval_shape(unit.module.init, jax.random.key(0), x)
        params = variables.get("params", {})
        inputs = params, variables.get("batch_stats", {}), x, None
        keys = tuple(params)
        program = partial(forward_program, unit.module, keys, unit.batch_norm_keys)
        y, _, residuals = jax.eval_shape(program, inputs)
        used = set(residuals.sources)
        paths = jax.tree_util.tree_leaves_with_path((inputs, y))
        for number, (path, leaf) in enumerate(paths):
            is_kernel = getattr(path[-1], "key", "") == "kernel"
            is_input = leaf is x and keys and unit is not network.units[0]
            if is_kernel or is_input:
                assert number in used, (unit.name, path)
        x = y


def test_a_cut_inside_a_block_keeps_nothing_of_the_layers_below():
    network = with_head(make_backbone("tiny"), 3)
    params, stats = init(network.units, 0, 32)
    cut = make_cut(network, 7)
    first, *_ = make_suffix(network, cut, "follow")
    unit = first.unit
    assert 0 < len(first.trainable) < len(unit.parameter_keys)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    x = infer(network[: cut.unit], params, stats, jnp.asarray(images))

    def kept(trainable, batch_norm):
        inputs = params[unit.name], stats[unit.name]
        y, _, pullback = forward_unit(
            unit.module, trainable, batch_norm, *inputs, x, None
        )
        grads, dx = backward_unit(True, pullback, y)
        assert set(grads) == set(trainable)
        maps = [leaf for leaf in jax.tree.leaves(pullback) if leaf.ndim == 4]
        return sum(leaf.nbytes for leaf in maps if len(leaf) == len(x)), dx

    own, no_gradient = kept(first.trainable, first.batch_norm)
    whole, gradient = kept(unit.parameter_keys, unit.batch_norm_keys)
    assert own < whole / 2
    assert no_gradient is None
    assert gradient.shape == x.shape
