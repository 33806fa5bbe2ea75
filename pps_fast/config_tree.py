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


def from_dict(cls: type[Any], values: Any, prefix: str = "config", *, ignores_others: bool = False) -> Any:
    """Builds a dataclass of JSON values, as written by this version or an older one: the one reader of our records.

    Args:
        cls: a config class, or another dataclass that checks its ranges itself.
        values: nested dicts and lists.
        prefix: what messages call the record.
        ignores_others: leave out fields that the class does not have, instead of refusing them.
    Raises:
        ValueError: for a field the class does not have or that is missing, or a value of another type; the message
            names it.
    """
    require(isinstance(values, dict), prefix, values, "fields and their values")
    if cls is PPSConfig:
        values = _with_new_names(values)
    hints = typing.get_type_hints(cls)
    known = {item.name: item for item in dataclasses.fields(cls)}
    unknown = [] if ignores_others else sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{prefix} has no field {', '.join(unknown)}; it was written by another version of pps_fast")
    missing = [name for name, item in known.items() if name not in values and _is_required(item)]
    if missing:
        raise ValueError(f"the field {missing[0]} is missing in {prefix}; it was changed after it was written")
    return cls(**{name: _value_from(hints[name], values[name], f"{prefix}.{name}") for name in known if name in values})


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


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
    """Checks the type of one JSON value against its field's, and rebuilds sections, tuples and what is in them."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value, name)
    if origin in (tuple, list):
        require(isinstance(value, list), name, value, "a list")
        return origin(_value_from(members[0], item, name) for item in value)
    if origin is dict:
        require(isinstance(value, dict), name, value, "an object")
        return {inner: _value_from(members[1], item, f"{name}.{inner}") for inner, item in value.items()}
    optional = [member for member in members if member is not type(None)]
    if len(optional) < len(members):
        # a choice that may be absent, or a tuple
        if value is None or typing.get_origin(optional[0]) is None:
            _require_kind(members, value, name)
            return value
        return _value_from(optional[0], value, name)
    if hint is not Any:
        _require_kind(members or (hint,), value, name)
    return value


def _require_kind(hints: tuple[Any, ...], value: Any, name: str) -> None:
    """Raises ValueError for a value of none of these types; choices are checked by the class they are in."""
    kinds = tuple(kind for kind in hints if isinstance(kind, type))
    if kinds:
        # a bool is an int to Python and not to a reader; an int may stand for a float
        is_kind = type(value) in kinds or (type(value) is int and float in kinds)
        require(is_kind, name, value, " or ".join(kind.__name__ for kind in kinds))
    else:
        require(isinstance(value, str), name, value, "a word")


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
