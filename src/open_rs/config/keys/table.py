"""The table of known keys: where each comes from, in which versions it existed, what it defaulted to, its fate here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

Fate = Literal["kept", "meant", "ignored", "refused"]
Version = tuple[int, ...]
INHERITED = "TrainingArguments"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `goes_to` is a dotted key of a recipe (kept) or a function of `meanings.py` (meant).

    `since` and `until` are versions of TRL; None for a key of transformers, open-r1 or open-rs, and for no end.
    `harmless` are values of a refused key that ask for nothing.
    """

    name: str
    home: str
    fate: Fate
    why: str
    goes_to: str = ""
    since: Version | None = None
    until: Version | None = None
    defaults: tuple[tuple[Version, Any], ...] = ()
    harmless: tuple[Any, ...] = ()

    def default_at(self, version: Version) -> Any:
        """The default in force in a version of TRL; None where the key did not exist yet."""
        in_force = [default for since, default in self.defaults if since <= version]
        return in_force[-1] if in_force else None

    def existed_at(self, version: Version) -> bool:
        """Whether that version of TRL knew the key; keys from elsewhere are never evidence against a version."""
        return (self.since is None or self.since <= version) and (self.until is None or version <= self.until)


@cache
def known_keys() -> dict[str, Key]:
    """Every known key, by name."""
    fates, versions = _read("fates.yaml"), _read("trl.yaml")
    homes = {name: home for home, names in fates["homes"].items() for name in names}
    return {
        name: _key(name, fate, why, goes_to, harmless, homes.get(name, ""), versions.get(name), fates["unwritten"])
        for name, fate, why, goes_to, harmless in _fates(fates)
    }


@cache
def pinned_keys() -> tuple[str, ...]:
    """Keys whose default of the day is written into a recipe that leaves them out."""
    return tuple(_read("fates.yaml")["pinned"])


@cache
def trl_versions() -> tuple[Version, ...]:
    """The versions at which any key or default of TRL changed, oldest first."""
    found = {since for key in known_keys().values() if key.since for since, _ in key.defaults}
    ends = {key.until for key in known_keys().values() if key.until is not None}
    return tuple(sorted(found | ends | {key.since for key in known_keys().values() if key.since}))


def parse_version(text: str) -> Version:
    """`"0.15.2"` is `(0, 15, 2)`, and `"0.15"` is `(0, 15, 0)`. Raises ValueError for anything else."""
    numbers = [int(part) for part in text.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def show_version(version: Version) -> str:
    """`(0, 15, 2)` is `"0.15.2"`."""
    return ".".join(str(part) for part in version)


def _fates(fates: Mapping[str, Any]) -> Iterator[tuple[str, Fate, str, str, tuple[Any, ...]]]:
    """(name, fate, why, where it goes, harmless values) of every key."""
    for name, target in fates["kept"].items():
        yield name, "kept", "", target, ()
    for function, row in fates["meant"].items():
        for name in row["keys"]:
            yield name, "meant", row["why"], function, ()
    for row in fates["ignored"]:
        for name in row["keys"]:
            yield name, "ignored", row["why"], "", ()
    for row in fates["refused"]:
        for name, harmless in row["keys"].items():
            yield name, "refused", row["why"], "", tuple(harmless)


def _key(
    name: str,
    fate: Fate,
    why: str,
    goes_to: str,
    harmless: tuple[Any, ...],
    home: str,
    history: Mapping[str, Any] | None,
    unwritten: Mapping[str, Any],
) -> Key:
    before = [(parse_version(since), default) for since, default in unwritten.get(name, {}).items()]
    if history is None or home:
        return Key(name, home, fate, why, goes_to, defaults=tuple(before), harmless=harmless)
    defaults = [(parse_version(since), default) for since, default in history["defaults"].items()]
    if history["home"] == INHERITED:
        defaults = [((0,), defaults[0][1])]
        return Key(name, INHERITED, fate, why, goes_to, defaults=tuple(defaults + before), harmless=harmless)
    return Key(
        name,
        history["home"],
        fate,
        why,
        goes_to,
        since=parse_version(history["since"]),
        until=parse_version(history["until"]) if "until" in history else None,
        defaults=tuple(sorted(before + defaults, key=lambda row: row[0])),
        harmless=harmless,
    )


def _read(name: str) -> dict[str, Any]:
    text = (resources.files("open_rs.config.keys") / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
