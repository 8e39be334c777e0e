"""Conditions on the rows of results.csv: `lr=0.001 bn=frozen`."""

from collections.abc import Sequence

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ftjax.analysis.rows import KEYS, SETTINGS, listed

COLUMNS = (*KEYS, "epochs", *SETTINGS, "trial")


def rows_where(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that meet all conditions.

    Args:
        table: rows of results.csv.
        conditions: `COLUMN=VALUE` each; where the column holds numbers, the value is
            compared as a number.

    Raises:
        ValueError: a condition is not of that form, its column is unknown, or no row
            has the value beside those asked for before it.
    """
    allowed = [name for name in COLUMNS if name in table]
    for count, condition in enumerate(conditions):
        name, equals, value = condition.partition("=")
        if not equals:
            raise ValueError(f"--where {condition} must be COLUMN=VALUE, as lr=0.001")
        if name not in allowed:
            raise ValueError(
                f"--where {condition}: no column {name!r}; allowed are "
                f"{', '.join(allowed)}"
            )
        fitting = table[_equals(table[name], value)]
        if fitting.empty:
            before = f" with {' '.join(conditions[:count])}" if count else ""
            found = sorted(table[name].dropna().unique())
            raise ValueError(
                f"--where {condition} fits no finished trial; {name}{before} is "
                f"{listed(found, most=8) or 'empty'}"
            )
        table = fitting
    return table


def _equals(column: pd.Series, value: str) -> pd.Series:
    if not is_numeric_dtype(column):
        return column.astype(str) == value
    try:
        return column == float(value)
    except ValueError:
        return column != column
