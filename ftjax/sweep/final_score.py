"""The test split: scored once, for the network that the answer names.

A test set that several choices were scored on is a second validation set. The first
score stands in test.json, with the trial it is of, and is never replaced.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ftjax.frozen.start import Start, with_fresh_head
from ftjax.machine.files import Damaged, read_json, set_aside, write_sealed
from ftjax.sweep.log import closing_all, read_log
from ftjax.sweep.records import RECORD, read_trial, trial_folder
from ftjax.sweep.trial import Trial, trial_start
from ftjax.training.evaluate import evaluate
from ftjax.training.step import init_state
from ftjax.training.suffix import make_suffix

FILE = "test.json"


def score_test(
    out: Path, start: Start, trial: Trial, images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """What the first scored trial of a run reaches on the test images.

    Args:
        out: the run's folder.
        start: the pretrained network.
        trial: that is named, and finished.
        images: uint8 (n, size, size, 3).
        labels: (n,).

    Returns:
        trial, images, correct, accuracy and loss; of an earlier choice if the split was
        scored before.
    """
    try:
        known = read_json(out / FILE)
    except ValueError:
        set_aside(out / FILE)
        known = None
    if known is not None:
        return known
    start = trial_start(start, trial.hyper)
    params, batch_stats = with_fresh_head(start, trial.seed)
    suffix = make_suffix(start.network, trial.cut, trial.policy)
    state = init_state(
        suffix,
        params,
        batch_stats,
        optimizer=trial.hyper.optimizer,
        hyper=trial.hyper.numbers,
    )
    log, state = read_log(out, trial, state)
    with closing_all([log]):
        record = read_trial(out, trial.id) or {"epochs": ()}
        if not log.rows or len(log.rows) < len(record["epochs"]):
            set_aside(trial_folder(out, trial.id) / RECORD)
            raise Damaged(
                f"the checkpoint of trial {trial.id} is damaged or missing, so the "
                "test images cannot be scored; the same command trains it again"
            )
        found = evaluate(
            start.network.units,
            {**params, **state.params},
            {**batch_stats, **state.batch_stats},
            images,
            labels,
            batch_size=trial.hyper.micro_batch,
        )
    score = {
        "trial": trial.id,
        "images": len(labels),
        "correct": int(found.correct.sum()),
        "accuracy": float(found.correct.mean()),
        "loss": float(found.loss),
    }
    write_sealed(out / FILE, score)
    return score
