"""Turning a flat recipe, written for TRL, open-r1 or open-rs of any version, into sections; a line for each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from open_rs.config.keys.file import File, Meaning, RefusedError
from open_rs.config.keys.meanings import IDLE, MEANINGS, SAMPLING, num_processes
from open_rs.config.keys.table import Key, Version, known_keys, parse_version, pinned_keys, show_version, trl_versions
from open_rs.config.schema import Recipe
from open_rs.config.validate import nearest
from open_rs.types import UserError

OPEN_R1_LAST: Version = (0, 18, 0)  # the TRL that open-r1's last release asked for
RELEASE: Version = (0, 16, 0)  # open-r1 and open-rs installed TRL's main branch, which called itself 0.16.0.dev0
OWN_REWARDS = "a script gave the rewards in Python; here the defaults stand, `format` and `accuracy`: see reward.terms"
Outcome = Literal["kept", "renamed", "pinned", "ignored"]


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one key. `value` is as given, or the default of the day where the file left the key out."""

    key: str
    value: Any
    outcome: Outcome
    became: Meaning
    why: str

    def __str__(self) -> str:
        """`temperature: 0.7 -> rollout.temperature` or `log_level: info ignored: ...`: one line."""
        if not self.became:
            return f"{self.key}: {_short(self.value)} {self.outcome}: {self.why}"
        targets = ", ".join(f"{key} {_short(value)}" for key, value in self.became.items())
        return f"{self.key}: {_short(self.value)} {self.outcome}: {targets}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Translation:
    """A recipe in sections, not yet validated; the notes, in the order of the file; and what was assumed."""

    tree: dict[str, Any]
    notes: tuple[Note, ...]
    written_for: str
    processes: int


def is_flat(tree: Mapping[str, Any]) -> bool:
    """Whether a file is in TRL's style: it names none of a recipe's own sections."""
    return bool(tree) and not (tree.keys() & ({*Recipe.model_fields} | {"extends"}))


def translate(
    flat: Mapping[str, Any], where: str, written_for: str | None = None, processes: int | None = None
) -> Translation:
    """Translate every key of `flat`.

    `written_for` is like `trl==0.15`; absent, the newest version whose keys fit. `processes` is how many trained.
    Raises UserError with one line for every key that is not known or refused; `where` is the file to blame.
    """
    unknown = [name for name in flat if name not in known_keys()]
    if unknown:
        lines = [
            f"{where}: `{name}` is no key of TRL, open-r1 or open-rs{nearest(name, [*known_keys()])}"
            for name in unknown
        ]
        raise UserError("\n".join(lines))
    family = _family(flat)
    version = _version(flat, family, where) if written_for is None else _given_version(written_for, family)
    pins = {name: known_keys()[name].default_at(version) for name in pinned_keys() if name not in flat}
    arguments = flat.get("generation_kwargs")
    sampling = {name: arguments[name] for name in SAMPLING if name in arguments} if isinstance(arguments, dict) else {}
    file = File(flat, pins | dict(flat) | sampling, version, family, processes)
    notes = _notes(file, where)
    label = f"TRL {show_version(version)}" + ("" if family == "TRL" else f" ({family})")
    return Translation(_tree(notes, where, label), notes, label, num_processes(file))


def _family(flat: Mapping[str, Any]) -> str:
    marks = [str(flat.get(name)) for name in ("dataset_name", "hub_model_id", "output_dir")]
    if any(mark.startswith("knoveleng/") or "OpenRS" in mark for mark in marks):
        return "open-rs"
    return "open-r1" if any(known_keys()[name].home == "open-r1" for name in flat) else "TRL"


def _version(flat: Mapping[str, Any], family: str, where: str) -> Version:
    """The newest version that knew every key; open-r1 never went past its last TRL."""
    keys = [known_keys()[name] for name in flat]
    fitting = [version for version in trl_versions() if all(key.existed_at(version) for key in keys)]
    fitting = [version for version in fitting if _values_fit(flat, version)]
    if not fitting:
        newest = max((key for key in keys if key.since), key=lambda key: key.since or ())
        oldest = min((key for key in keys if key.until), key=lambda key: key.until or (), default=newest)
        raise UserError(
            f"{where}: no version of TRL had all these keys: `{oldest.name}` was gone after "
            f"{show_version(oldest.until or ())}, `{newest.name}` came with {show_version(newest.since or ())}; "
            "say which with --written-for trl==VERSION"
        )
    if family == "open-rs" and RELEASE in fitting:
        return RELEASE
    capped = [version for version in fitting if family == "TRL" or version <= OPEN_R1_LAST]
    return (capped or fitting)[-1]


def _values_fit(flat: Mapping[str, Any], version: Version) -> bool:
    since = [(0,), *(VALUES_SINCE.get((name, value), (0,)) for name, value in flat.items() if isinstance(value, str))]
    return version >= max(since)


def _given_version(text: str, family: str) -> Version:
    package, _, number = text.rpartition("==")
    try:
        version = parse_version(number.strip())
    except ValueError:
        version = ()
    if package.strip() not in ("", "trl") or not version or version < (0, 14) or version > trl_versions()[-1]:
        newest = show_version(trl_versions()[-1])
        raise UserError(f"--written-for {text}: give a version of TRL from 0.14 to {newest}, like trl==0.15.2")
    return RELEASE if family != "TRL" and version[:2] == (0, 15) else version


def _notes(file: File, where: str) -> tuple[Note, ...]:
    notes, refusals = [], []
    for name, value in file.values.items():
        try:
            notes.append(_note(file, known_keys()[name], value))
        except RefusedError as refusal:
            refusals.append(f"{where}: {refusal}")
    if refusals:
        raise UserError("\n".join(dict.fromkeys(refusals)))
    order = {name: position for position, name in enumerate([*file.given, *file.values])}
    return tuple(sorted(notes, key=lambda note: (note.key not in file.given, order[note.key])))


def _note(file: File, key: Key, value: Any) -> Note:
    if key.fate == "refused" and value not in key.harmless:
        raise RefusedError(f"`{key.name}: {_short(value)}` is refused: {key.why}")
    if key.fate in ("ignored", "refused"):
        why = key.why if key.fate == "ignored" else "asks for nothing"
        return Note(key.name, value, "ignored", {}, why)
    applies, idle_because = IDLE.get(key.name, (lambda _: False, ""))
    if applies(file):
        return Note(key.name, value, "ignored", {}, idle_because)
    became = {key.goes_to: value} if key.fate == "kept" else MEANINGS[key.goes_to](file)
    if value is None and key.fate == "kept":
        became = {}
    if key.name not in file.given:
        why = f"default of TRL {show_version(file.version)}" if became or key.name != "reward_funcs" else OWN_REWARDS
        return Note(key.name, value, "pinned" if became else "ignored", became, why)
    if not became:
        return Note(key.name, value, "ignored", {}, key.why or "empty")
    same = list(became.values()) == [value] and next(iter(became)).rpartition(".")[2] == key.name
    return Note(key.name, value, "kept" if same else "renamed", became, key.why)


def _tree(notes: tuple[Note, ...], where: str, label: str) -> dict[str, Any]:
    tree: dict[str, Any] = {"about": f"Translated from {where}, written for {label}."}
    because: dict[str, str] = {}
    for note in notes:
        for dotted, value in note.became.items():
            *sections, leaf = dotted.split(".")
            here = tree
            for section in sections:
                here = here.setdefault(section, {})
            here[leaf] = value
            because.setdefault(dotted, f"`{note.key}: {_short(note.value)}`" + (f", {note.why}" if note.why else ""))
    return {**tree, "because": because}


def _short(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


VALUES_SINCE: dict[tuple[str, str], Version] = {  # values that say more about the version than their key does
    ("loss_type", "dapo"): (0, 22, 0),
    ("scale_rewards", "group"): (0, 22, 0),
    ("scale_rewards", "batch"): (0, 22, 0),
    ("scale_rewards", "none"): (0, 22, 0),
}
