"""YAML files <-> dataclasses whose fields are the documentation: what a run can be told, checked before it starts."""

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Self, get_args, get_origin

import yaml


class YamlArguments:
    """A dataclass that one YAML file holds, and whose `check` refuses values that cannot work."""

    @classmethod
    def from_yaml(cls, path) -> Self:
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


def read_yaml(cls, path):
    """Reads a YAML file of a dataclass's fields.

    Raises:
        ValueError: it is no YAML, or a key is unknown, missing or of another type; the message names file and key.
        OSError: the file cannot be read.
    """
    with open(path) as stream:
        try:
            values = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: this is no YAML ({' '.join(str(error).split())}); correct it.") from error
    return parse(cls, values, str(path))


def parse(cls, values, place: str):
    """A dict -> dataclass, with nested dataclasses and lists of them; types are checked.

    Raises:
        ValueError: a key is unknown, missing or of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{place}: here must be keys and values, not {values!r}.")
    known = {item.name: item for item in fields(cls)}
    if unknown := sorted(map(str, set(values) - set(known))):
        raise ValueError(f"{place}: unknown key {', '.join(unknown)}; {cls.__name__} knows {', '.join(known)}.")
    required = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{place}: {', '.join(missing)} is missing; it has no default.")
    return cls(**{name: _typed(known[name].type, value, f"{place}: {name}") for name, value in values.items()})


def _typed(kind, value, place):
    if isinstance(kind, types.UnionType):  # a list, or what a single value is
        kind = next(one for one in get_args(kind) if isinstance(value, list) == (get_origin(one) is list))
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise ValueError(f"{place}: must be a list, not {value!r}.")
        return [_typed(get_args(kind)[0], one, place) for one in value]
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{place}: must be keys and values, not {value!r}.")
        return {str(key): _typed(get_args(kind)[1], one, f"{place}: {key}") for key, one in value.items()}
    if is_dataclass(kind):
        return parse(kind, value, place)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{place}: must be {kind.__name__}, not {value!r}.")
    return value


def describe(cls) -> str:
    """Every key of a dataclass's YAML file with its type, default and meaning, nested ones below their own heading."""
    lines, nested = [f"{cls.__name__}: {cls.__doc__.splitlines()[0]}"], []
    for item in fields(cls):
        inner = [one for one in (item.type, *get_args(item.type)) if is_dataclass(one)]
        inner += [one for kind in get_args(item.type) for one in get_args(kind) if is_dataclass(one)]
        nested += [one for one in inner if one not in nested]
        default = "required" if item.default is MISSING else f"default {item.default!r}"
        if item.default_factory is not MISSING:
            default = "default empty" if not inner or get_origin(item.type) else "default as below"
        kind = item.type.__name__ if isinstance(item.type, type) and not get_args(item.type) else str(item.type)
        kind = kind.replace("training.data.arguments.", "").replace("training.data.augmentation.", "")
        lines.append(f"  {item.name} ({kind}, {default}): {item.metadata['help']}")
    return "\n".join([*lines, *(f"\n{describe(one)}" for one in nested)])


__all__ = ["YamlArguments", "describe", "parse", "read_yaml"]
