"""The depth paper's printed numbers, and the form of a verdict on one of them.

A. R. Philip, "Fine-Tuning Depth Analysis: Identifying the Sweet Spot for Maximum
Accuracy in CNNs", IJSRCSE 13(3), 2025, doi 10.26438/ijsrcse.v13i3.703.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_TABLES = Path(__file__).with_name("tables.json")

VERDICTS = {
    "agrees": "recomputed to the printed digits",
    "wrong": "does not follow from the paper's own numbers",
    "misleading": "follows, but does not mean what the text says",
    "impossible": "no data could give this number",
    "not identifiable": "the published data cannot determine it",
    "added": "not in the paper, computed from its data",
}


class Check(NamedTuple):
    """One published number against its recomputation.

    Attributes:
        item: what it is and where it stands.
        published: text as shown.
        recomputed: text as shown.
        verdict: a key of VERDICTS.
    """

    item: str
    published: str
    recomputed: str
    verdict: str


class Experiment(NamedTuple):
    """One network of the paper: tables 3-5, its equations and table of predictions.

    Attributes:
        name: key of the network.
        model: as the paper calls it.
        dataset: as the paper calls it.
        total_layers: N.
        epochs: of every trial.
        train_size: number of training images.
        val_size: number of validation images; of Food-101 implied by the text (25 % of
            10,100), not printed.
        parameters: of the network without its top.
        depth: (n,) unfrozen layers, increasing.
        accuracy: (n,) measured.
        loss: (n,) measured.
        val_accuracy: (n,) measured.
        val_loss: (n,) measured.
        equation_val_accuracy: (3,) a0, a1, a2 of a0 + a1 L + a2 L^2.
        equation_val_loss: (3,) likewise.
        equation_numbers: of these two equations.
        predicted_table: number of the table of predictions.
        predicted: (n,) validation accuracy by the equation, as printed.
        predicted_actual: (n,) measured column of that table.
        optimum: depth that the paper names as best.
        optimum_val_accuracy: that it names for this depth.
        mse: of the predictions, as printed.
        mae: of the predictions, as printed.
    """

    name: str
    model: str
    dataset: str
    total_layers: int
    epochs: int
    train_size: int
    val_size: int
    parameters: int
    depth: np.ndarray
    accuracy: np.ndarray
    loss: np.ndarray
    val_accuracy: np.ndarray
    val_loss: np.ndarray
    equation_val_accuracy: np.ndarray
    equation_val_loss: np.ndarray
    equation_numbers: tuple[str, str]
    predicted_table: str
    predicted: np.ndarray
    predicted_actual: np.ndarray
    optimum: int
    optimum_val_accuracy: float
    mse: float
    mae: float


def load_paper() -> dict[str, Any]:
    """Read the shipped tables: every number as printed, see the file's own note."""
    return json.loads(_TABLES.read_text(encoding="utf-8"))


def load_experiments() -> dict[str, Experiment]:
    """The three networks by name: resnet152, vgg16, efficientnetb0."""
    experiments = {}
    for name, printed in load_paper()["experiments"].items():
        arrays = {
            key: np.asarray(value, dtype=float)
            for key, value in printed.items()
            if isinstance(value, list) and key != "equation_numbers"
        }
        numbers = {"equation_numbers": tuple(printed["equation_numbers"])}
        experiments[name] = Experiment(name=name, **(printed | arrays | numbers))
    return experiments


def equation(coef: np.ndarray, depth) -> np.ndarray:
    """Value of a0 + a1 L + a2 L^2 at each depth."""
    x = np.asarray(depth, dtype=float)
    return coef[0] + coef[1] * x + coef[2] * x * x


def equation_argmax(coef: np.ndarray, total_layers: int) -> int:
    """Depth of the largest value on the integers 0..N."""
    return int(np.argmax(equation(coef, np.arange(total_layers + 1))))
