"""`--gradual`: after the depths, gradual unfreezing as their rival.

From the head alone on, each depth goes on from the weights of the one before (Howard
and Ruder 2018, "Universal Language Model Fine-tuning", section 3.3). What lies below a
cut has not been trained before it, so the frozen part is the pretrained one as ever.
"""

from dataclasses import replace

from ftjax.sweep.plan import Point, Request
from ftjax.sweep.prepare import Sweep, make_settings, seeds_of
from ftjax.sweep.rounds import Round, Strategy, exhaust
from ftjax.sweep.trial import Hyperparameters

Chain = tuple[str, int, Hyperparameters]  # policy, seed, setting


def unfreeze_gradually(sweep: Sweep, strategy: Strategy) -> Strategy:
    """Another strategy, then the chains of depths, a round for each depth.

    A chain ends where a trial of it fails.

    Args:
        sweep: what to train.
        strategy: of the depths.
    """
    _, last = yield from exhaust(strategy)
    config = sweep.config
    asked = [request.cut for request in last.plan.requests if not request.blocks]
    cuts = {cut.same_set: cut.depth_layers for cut in asked}
    depths = [0, *(depth for same, depth in sorted(cuts.items()) if same)]
    chains: dict[Chain, str] = {
        (policy, seed, hyper): ""
        for policy in config.bn
        for seed in seeds_of(config)
        for hyper in make_settings(config)
    }
    points = last.plan.points
    for depth in depths:
        own = {
            chain: Point(depth, *chain[:2], replace(chain[2], begin=before))
            for chain, before in chains.items()
        }
        points = [*points, *own.values()]
        plan = sweep.plan(points)
        ids = {
            chain: next(r.trial for r in plan.requests if answers(r, point))
            for chain, point in own.items()
        }
        goals = {id: plan.goals[id] for id in ids.values()}
        reason = f"gradual unfreezing: {depth} of {max(depths)} layers"
        last = Round(plan, goals, last.stopped - goals.keys(), reason)
        found = yield last
        chains = {
            chain: id
            for chain, id in ids.items()
            if id not in found.failed | found.left_out
        }
    return last


def answers(request: Request, point: Point) -> bool:
    """Whether a row is that of a point."""
    same = request.cut.depth_layers == point.depth_layers and not request.blocks
    return same and (request.policy, request.seed, request.hyper) == point[1:4]
