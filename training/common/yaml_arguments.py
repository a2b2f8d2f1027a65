"""YAML files <-> dataclasses: fields with help texts, types checked by pydantic before a run starts."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

# keys of earlier versions -> their present names, wherever a class has the new one and lacks the old one
RENAMED_KEYS = {
    "average_decay": "ema_decay",
    "fewest_notes": "min_notes",
    "gradient_cache_chunk": "mini_batch_size",
    "gradient_norm": "max_grad_norm",
    "struck_keys_weight": "onset_weight",
}
UNKNOWN_KEY = "unexpected_keyword_argument"
TYPE_NAMES = {
    "int_type": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "bool",
    "list_type": "a list",
    "dict_type": "keys and values",
    "dataclass_type": "keys and values",
}


class YamlArguments:
    """A dataclass that is read from a YAML file; its `check` refuses invalid values."""

    @classmethod
    def from_yaml(cls, path: str | os.PathLike) -> Self:
        """Reads a file of arguments.

        Raises:
            ValueError: a key is unknown, missing, of another type or out of range; the message names file and key.
            OSError: the file cannot be read.
        """
        arguments = read_yaml(cls, path)
        arguments.check(str(path))
        return arguments

    def check(self, place: str) -> None:
        """Raises a `ValueError` that begins with `place`, before anything is read."""
        raise NotImplementedError


def read_yaml(cls, path: str | os.PathLike) -> Any:
    """Reads a YAML file of a dataclass's fields.

    Raises:
        ValueError: it is not YAML, or a key is unknown, missing or of another type; the message names file and key.
        OSError: the file cannot be read.
    """
    with open(path) as stream:
        try:
            values = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: this is not YAML ({' '.join(str(error).split())}); correct it.") from error
    return parse(cls, values, str(path))


def parse(cls, values: object, place: str) -> Any:
    """A dict -> dataclass, with nested dataclasses and lists of them; types are checked by pydantic.

    Raises:
        ValueError: a key is unknown, missing or of another type.
    """
    nested = list(_dataclasses(cls))
    for nested_class in nested:  # strict: the text "3" is not a number
        nested_class.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    known = {item.name for nested_class in nested for item in fields(nested_class)}
    values = _with_new_names(values, known, place)
    try:
        # By JSON, where pydantic's strict mode takes the keys and values of a dataclass.
        return TypeAdapter(cls).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ValueError(f"{place}: {_in_words(error, known)}") from error


def _dataclasses(kind: Any) -> Iterator[type]:
    """A dataclass and those of its fields, at any depth."""
    if is_dataclass(kind):
        yield kind
        for item in fields(kind):
            yield from _dataclasses(item.type)
    for inner in get_args(kind):
        yield from _dataclasses(inner)


def _with_new_names(values: Any, known: set[str], place: str) -> Any:
    """Renames keys of earlier versions, with one warning line each."""
    if isinstance(values, list):
        return [_with_new_names(value, known, place) for value in values]
    if not isinstance(values, dict):
        return values
    renamed = {}
    for key, value in values.items():
        name = RENAMED_KEYS.get(key)
        if name is not None and name in known and key not in known and name not in values:
            print(f"{place}: the key `{key}` is now called `{name}`; rename it.", file=sys.stderr)
            key = name
        renamed[key] = _with_new_names(value, known, place)
    return renamed


def _in_words(error: ValidationError, known: set[str]) -> str:
    """The first of pydantic's problems; a misspelt key comes before the missing key that it causes.

    pydantic names the branch of a union among the keys: `str` or `list[...]`.
    """
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != UNKNOWN_KEY)
    kind, value = problems[0]["type"], problems[0]["input"]
    names = [str(name) for name in problems[0]["loc"] if name != "str" and not str(name).startswith("list[")]
    if kind == UNKNOWN_KEY:
        close = get_close_matches(names[-1], known, 1)
        return f"unknown key {names[-1]}; " + (f"did you mean {close[0]}?" if close else "--help lists all keys.")
    place = ": ".join(names)
    if kind == "missing":
        return f"{place} is missing; it has no default."
    wanted = f"must be {TYPE_NAMES[kind]}" if kind in TYPE_NAMES else problems[0]["msg"]
    return f"{place + ': ' if place else ''}{wanted}, not {value!r}."


def describe(cls) -> str:
    """Every key of a dataclass's YAML file with its type, default and meaning, nested ones below their own heading."""
    lines, nested = [f"{cls.__name__}: {cls.__doc__.splitlines()[0]}"], []
    for item in fields(cls):
        inner = [inner_class for inner_class in (item.type, *get_args(item.type)) if is_dataclass(inner_class)]
        inner += [
            inner_class for kind in get_args(item.type) for inner_class in get_args(kind) if is_dataclass(inner_class)
        ]
        nested += [inner_class for inner_class in inner if inner_class not in nested]
        default = "required" if item.default is MISSING else f"default {item.default!r}"
        if item.default_factory is not MISSING:
            default = "default empty" if not inner or get_origin(item.type) else "default as below"
        kind = item.type.__name__ if isinstance(item.type, type) and not get_args(item.type) else str(item.type)
        kind = kind.replace("training.data.arguments.", "").replace("training.data.augmentation.", "")
        lines.append(f"  {item.name} ({kind}, {default}): {item.metadata['help']}")
    return "\n".join([*lines, *(f"\n{describe(inner_class)}" for inner_class in nested)])


__all__ = ["YamlArguments", "describe", "parse", "read_yaml"]
