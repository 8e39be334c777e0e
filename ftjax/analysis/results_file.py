"""Anybody's table of depths and accuracies, read with this project's column names."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ftjax.analysis.rows import check_units
from ftjax.machine.files import read_checked


def read_results(
    path: Path, *, total_layers: int | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Reads anybody's table as CSV; result and errors as of `own_columns`."""
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise ValueError(f"no file {path}: give the path of a results.csv") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read {path} as CSV: {reason}") from None
    return own_columns(table, str(path), total_layers=total_layers)


def own_columns(
    table: pd.DataFrame, name_of_table: str, *, total_layers: int | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Gives anybody's table this project's column names.

    Args:
        table: columns `depth_layers` or `depth`, `val_accuracy` or `accuracy`, and any
            others; it is not changed.
        name_of_table: for messages.
        total_layers: layers of the whole network, for tables that do not say.

    Returns:
        The table and sentences about what was assumed.

    Raises:
        ValueError: a column is missing or not numeric.
    """
    notes = []
    table = table.copy()
    table.columns = [str(column).strip() for column in table.columns]
    for name, other in (("depth_layers", "depth"), ("val_accuracy", "accuracy")):
        if name not in table and other not in table:
            raise ValueError(
                f"{name_of_table} has no column {name} or {other}; "
                f"found: {', '.join(table.columns)}"
            )
        if name not in table:
            table = table.rename(columns={other: name})
            notes.append(f"Column {other} is read as {name}.")
        # Failed trials may have gaps; text is a mistake worth naming.
        numbers = pd.to_numeric(table[name], errors="coerce")
        text = table[name][table[name].notna() & numbers.isna()].tolist()
        if text:
            raise ValueError(
                f"{name_of_table}: column {name} holds {text[0]!r}, which is no number"
            )
        table[name] = numbers
    check_units(table["val_accuracy"].to_numpy(float))
    highest = float(table["val_accuracy"].max())
    if 1 < highest <= 100:
        for name in ("val_accuracy", "accuracy", "train_mode_accuracy"):
            if name in table:
                table[name] = table[name] / 100
        notes.append(f"Accuracies up to {highest:g} are read as percent.")
    if total_layers is not None:
        table["total_layers"] = total_layers
    return table, notes


def read_correct(path: Path, trials: Sequence[str]) -> dict[str, np.ndarray]:
    """Per-image results beside the table: trials/<trial>/val_correct.npy.

    (n_val,) bool, or (epochs, n_val), of which the last epoch is taken.
    """
    found = {}
    for trial in trials:
        file = path.parent / "trials" / trial / "val_correct.npy"
        if file.is_file():
            right = np.load(file, allow_pickle=False)
            found[trial] = right[-1] if right.ndim == 2 else right
    return found


def is_run(path: Path) -> bool:
    """Whether a table is a sweep's own, in the folder of the run."""
    file = path.parent / "config.json"
    if path.name != "results.csv" or not file.is_file():
        return False
    try:
        saved = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {"config", "class_names"} <= saved.keys()


def read_table(path: Path) -> pd.DataFrame | None:
    """A table beside the one that is analyzed, or None."""
    return pd.read_csv(path) if path.is_file() else None


def read_array(path: Path) -> np.ndarray | None:
    """An array beside the table that is analyzed, or None."""
    content = read_checked(path)
    return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)
