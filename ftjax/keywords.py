"""Keyword arguments as a configuration: the fields of `Config`, in Python's types."""

import inspect
import os
import re
import types
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ftjax.config import Config

# Of the command alone: it prints and stops, and processes are joined before JAX starts.
NOT_KEYWORDS = ("plan", "distributed")
HINTS = get_type_hints(Config)
NAMES = tuple(f.name for f in fields(Config) if f.name not in NOT_KEYWORDS)


def make_config(settings: dict[str, Any]) -> Config:
    """A configuration from keyword arguments.

    A field of several values takes one as well, and lists as well as tuples; a field
    that is a path takes text; depths may be numbers.

    Args:
        settings: values by the name of a field of `Config`.

    Raises:
        TypeError: a name is unknown, or a value is of another type.
    """
    for name in settings:
        if name not in NAMES:
            close = get_close_matches(name.replace("-", "_"), NAMES, n=1, cutoff=0)
            raise TypeError(f"unknown argument {name!r}; did you mean {close[0]!r}?")
    return Config(**{name: as_field(name, value) for name, value in settings.items()})


def as_field(name: str, value: Any) -> Any:
    """A value as a field of `Config` holds it.

    Raises:
        TypeError: it cannot be one; says what can.
    """
    if name == "depths":
        several = isinstance(value, list | tuple | range | np.ndarray)
        value = [str(depth) for depth in (value if several else [value])]
    try:
        return convert(HINTS[name], value)
    except TypeError:
        allowed = words_for(HINTS[name])
        raise TypeError(f"{name}={value!r} is not allowed; give {allowed}") from None


def convert(hint: Any, value: Any) -> Any:
    """A value as the type that a hint names.

    Raises:
        TypeError: it cannot be one.
    """
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return convert(parts[0], value)
    if kind in (Union, types.UnionType):
        for part in parts:
            try:
                return convert(part, value)
            except TypeError:
                continue
    elif kind is Literal:
        if value in parts:
            return value
    elif kind is tuple:
        several = isinstance(value, list | tuple | range | np.ndarray)
        return tuple(
            convert(parts[0], each) for each in (value if several else [value])
        )
    elif hint is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    elif hint is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    elif isinstance(value, bool | np.bool_):
        pass
    elif hint is int and isinstance(value, int | np.integer):
        return int(value)
    elif hint is float and isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    elif hint is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    elif hint is types.NoneType and value is None:
        return None
    raise TypeError(f"{value!r} is no {hint}")


def words_for(hint: Any) -> str:
    """What a hint allows, for a message."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return words_for(parts[0])
    if kind in (Union, types.UnionType):
        return " or ".join(words_for(part) for part in parts)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind is tuple:
        return f"{words_for(parts[0])}, or several"
    names = {int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return {**names, bool: "True or False"}.get(hint, "None")


def signature_of(function: Any) -> inspect.Signature:
    """A function's signature, with the fields of `Config` for its `**settings`."""
    own = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    taken = {each.name for each in own}
    more = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for field in fields(Config)
        if field.name in NAMES and field.name not in taken
    ]
    return inspect.Signature([*own, *more])


def in_python(message: str) -> str:
    """A command's message as that of a call: `val_size=5` for `--val-size 5`."""

    def name_of(flag: re.Match) -> str:
        name, value = flag[1].replace("-", "_"), flag[2]
        if name.startswith("no_") and name[3:] in NAMES:
            return f"{name[3:]}=False{value or ''}"
        if name not in NAMES:
            return flag[0]
        return f"{name}{'=' + value[1:] if value else ''}"

    return re.sub(r"--([a-z][a-z0-9-]*[a-z0-9])( -?[0-9][\w.-]*)?", name_of, message)
