"""A flat recipe with the defaults of its day, and the way to say that it can't be had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from open_rs.config.keys.table import Version

Meaning = dict[str, Any]  # dotted key of a recipe: value


class RefusedError(Exception):
    """A recipe asks for something that would change what is learned and can't be had."""


@dataclass(frozen=True, slots=True)
class File:
    """A flat recipe: `values` are those given and, for the rest, the defaults of its day."""

    given: Mapping[str, Any]
    values: Mapping[str, Any]
    version: Version
    family: str  # TRL, open-r1 or open-rs
    processes: int | None = None

    def get(self, name: str, default: Any = None) -> Any:
        value = self.values.get(name)
        return default if value is None else value


def mapping(file: File, name: str) -> Mapping[str, Any]:
    value = file.get(name, {})
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise RefusedError(f"`{name}`: {value!r} is no mapping") from None
    if not isinstance(value, Mapping):
        raise RefusedError(f"`{name}`: {value!r} is no mapping")
    return value


def pick(arguments: Mapping[str, Any], known: Mapping[str, str], harmless: tuple[str, ...], name: str) -> Meaning:
    unknown = [key for key in arguments if key not in known and key not in harmless]
    if unknown:
        raise RefusedError(f"`{name}`: {', '.join(unknown)} can't be had; {', '.join(known)} can")
    return {known[key]: value for key, value in arguments.items() if key in known}
