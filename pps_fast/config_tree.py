"""Converts configs to nested dicts and back, replaces and compares fields, and reads configs of older versions."""

from __future__ import annotations

import copy
import dataclasses
import json
import typing
from typing import Any

from pps_fast.config import PPSConfig, require

# fields of PPSConfig that were renamed: dotted old name -> dotted new name. Old configs, checkpoints, results and
# command lines stay readable
OLD_NAMES: dict[str, str] = {
    "reconstructor.plan": "reconstructor.schedule",
    "train.optimise": "train.update",
}


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config (or part of one) as nested plain dicts, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def from_dict(cls: type[Any], values: dict[str, Any], prefix: str = "config") -> Any:
    """Builds a config class from nested dicts, as written by `to_dict` of this version or an older one.

    Raises:
        ValueError: for a field the class does not have, or a value of another type; the message names it.
    """
    require(isinstance(values, dict), prefix, values, "fields and their values")
    if cls is PPSConfig:
        values = _with_new_names(values)
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{prefix} has no field {', '.join(unknown)}; it was written by another version of pps_fast")
    built = {name: _value_from(hints[name], value, f"{prefix}.{name}") for name, value in values.items()}
    return cls(**built)


def _with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a PPSConfig with those of OLD_NAMES under their new names; `values` stays as it is."""
    renamed = copy.deepcopy(values)
    for old, new in OLD_NAMES.items():
        section, name = _section_of(renamed, old)
        if name in section:
            value = section.pop(name)
            section, name = _section_of(renamed, new)
            require(name not in section, old, value, f"only {new}, its new name, which is there too")
            section[name] = value
    return renamed


def _section_of(values: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Returns the section of a dotted field, created if it is missing, and the name of the field in it."""
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            # not a config: what reads the section says so
            return {}, name
    return values, name


def first_names(changes: dict[str, Any]) -> dict[str, Any]:
    """Returns dotted fields under their first names, because renaming a field must not change a run's identity."""
    first = {new: old for old, new in OLD_NAMES.items()}
    return {first.get(path, path): value for path, value in changes.items()}


def _value_from(hint: Any, value: Any, name: str) -> Any:
    """Checks the type of one JSON value against its field's, and rebuilds sections and tuples."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value, name)
    if typing.get_origin(hint) is tuple:
        require(isinstance(value, list), name, value, "a list")
        return tuple(value)
    kinds = tuple(kind for kind in typing.get_args(hint) or (hint,) if isinstance(kind, type))
    if kinds:
        # a bool is an int to Python and not to a reader; an int may stand for a float
        is_kind = type(value) in kinds or (type(value) is int and float in kinds)
        require(is_kind, name, value, " or ".join(kind.__name__ for kind in kinds))
    return value


def override(config: Any, changes: dict[str, Any], prefix: str = "") -> Any:
    """Returns `config` with dotted fields or whole sections replaced: override(c, {"losses.pull": 0.0}).

    The changes of one section take effect together, so that their order does not matter.

    Raises:
        ValueError: for a field that does not exist, or a value of another type or that is refused.
    """
    sections: dict[str, dict[str, Any]] = {}
    replaced: dict[str, Any] = {}
    names, hints = [item.name for item in dataclasses.fields(config)], typing.get_type_hints(type(config))
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        require(name in names, "override", prefix + path, "a field among " + ", ".join(names))
        section = type(getattr(config, name)) if dataclasses.is_dataclass(getattr(config, name)) else None
        if section is None:
            require(not rest, "override", prefix + path, f"no field of {prefix}{name}, which is a value")
        elif not rest:
            require(isinstance(value, section), "override", prefix + path, f"a field of {prefix}{name}, or all of them")
        if rest:
            sections.setdefault(name, {})[rest] = value
        else:
            plain = list(value) if isinstance(value, tuple) else value
            replaced[name] = value if section else _value_from(hints[name], plain, prefix + name)
    for name, inner in sections.items():
        replaced[name] = override(getattr(config, name), inner, f"{prefix}{name}.")
    return dataclasses.replace(config, **replaced)


def differences(start: Any, config: Any) -> dict[str, Any]:
    """Returns the dotted fields whose values differ from `start`'s, as JSON has them.

    differences(c, override(c, {"losses.pull": 0.0})) is {"losses.pull": 0.0}.
    """
    before, after = flatten(to_dict(start)), flatten(to_dict(config))
    return {path: value for path, value in after.items() if value != before[path]}


def flatten(values: dict[str, Any], separator: str = ".") -> dict[str, Any]:
    """Returns the values of nested dicts by their paths: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update({f"{name}{separator}{rest}": inner for rest, inner in flatten(value, separator).items()})
        else:
            flat[name] = value
    return flat
