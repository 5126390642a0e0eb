"""Configuration: nested dataclasses, filled from YAML and ``section.key=value`` flags, stored with a run."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
import tempfile
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union

import yaml

__all__ = ["apply_settings", "parse_flags", "read_yaml", "to_mapping", "write_text", "write_yaml"]

T = TypeVar("T")


def apply_settings(config: T, settings: Mapping[str, Any], *, where: str = "settings") -> T:
    """Return ``config`` with the values of ``settings`` in place of its own.

    Parameters
    ----------
    config : dataclass instance
        The defaults. Fields that are dataclasses themselves are filled from nested mappings.
    settings : mapping
        Names to values, nested like ``config``; names left out keep the default.
    where : str
        What the settings came from; errors begin with it.

    Raises
    ------
    ValueError
        If a name is unknown (the nearest known one is named) or a value has the wrong type.
    """
    return _apply(config, settings, where, "")


def _apply(config: T, settings: Mapping[str, Any], where: str, prefix: str) -> T:
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"{where}: {prefix.rstrip('.') or 'the file'} must hold names and values, got {settings!r}"
        )
    known = {field.name for field in dataclasses.fields(config) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise ValueError(_unknown(where, prefix, str(name), known))
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            changes[name] = _apply(current, value, where, f"{prefix}{name}.")
        else:
            changes[name] = _convert(value, hints[name], where, prefix + name)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _unknown(where: str, prefix: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return f"{where}: unknown key {prefix}{name}; {hint}"


def _convert(value: Any, hint: Any, where: str, name: str) -> Any:
    """Return ``value`` as the annotated type: YAML has no tuples, and reads 1e-3 as text and 1 as int."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, name)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(
                f"{where}: {name} must be one of {', '.join(map(repr, arguments))}, got {value!r}"
            )
        return value
    if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            raise ValueError(f"{where}: {name} must be a list, got {value!r}")
        item = arguments[0] if arguments else Any
        return tuple(_convert(entry, item, where, name) for entry in value)
    if hint is bool or hint is int or hint is str:
        if type(value) is not hint:
            raise ValueError(f"{where}: {name} must be of type {hint.__name__}, got {value!r}")
        return value
    if hint is float:
        return _to_float(value, where, name)
    return value


def _convert_union(value: Any, arguments: tuple[Any, ...], where: str, name: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problem: ValueError | None = None
    for hint in arguments:
        if hint is type(None):
            continue
        try:
            return _convert(value, hint, where, name)
        except ValueError as error:
            problem = problem or error
    raise problem or ValueError(f"{where}: {name} must be None, got {value!r}")


def _to_float(value: Any, where: str, name: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {name} must be a number, got {value!r}") from None


def parse_flags(flags: Iterable[str]) -> dict[str, Any]:
    """Return nested settings from ``section.key=value`` texts; values are read as YAML.

    Examples
    --------
    >>> parse_flags(["training.steps=200", "windows.align=null"])
    {'training': {'steps': 200}, 'windows': {'align': None}}
    """
    settings: dict[str, Any] = {}
    for flag in flags:
        path, equals, text = flag.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise ValueError(f"--set: must be section.key=value, got {flag!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"--set: the value of {path} is not valid YAML, got {text!r}") from None
        inner = settings
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"--set: {path} is set below a key that already has a value")
        inner[names[-1]] = value
    return settings


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a dataclass instance as plain dictionaries, lists and scalars, ready for YAML or JSON."""
    return {
        field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping that a YAML file holds (an empty file: no settings).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not valid YAML, or holds something else than names and values.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"read_yaml: no such file: {file}")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 1})"
        raise ValueError(f"{file.name}: not valid YAML{place}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{file.name}: must hold names and values, got a {type(settings).__name__}")
    return settings


def write_yaml(path: str | os.PathLike[str], config: Any) -> None:
    """Write a dataclass or mapping as YAML, in field order, atomically."""
    mapping = _plain(config)
    write_text(path, yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, default_flow_style=None))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file so that its final name never holds half of it."""
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private to the user
        os.replace(temporary, file)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
