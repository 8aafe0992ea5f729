"""Turning a plain mapping into a `Recipe`, in messages that name the dotted key, what is allowed, the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from open_rs.config.schema import Recipe
from open_rs.types import UserError


def validate(tree: Mapping[str, Any], where: str) -> Recipe:
    """Build the recipe. Raises UserError with one line for each fault; `where` is the file or recipe to blame."""
    try:
        return Recipe.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_explain(fault, tree) for fault in error.errors()]
        raise UserError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines))) from None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included: `rollout`, `rollout.temperature`, ..."""
    for name, info in model.model_fields.items():
        yield prefix + name
        section = _section_in(info.annotation)
        if section is not None and not _is_list_of_sections(info.annotation):
            yield from known_keys(section, f"{prefix}{name}.")


def nearest(name: str, known: Iterator[str] | list[str]) -> str:
    """` The nearest known name is ...`, or nothing where no name is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; the nearest known name is `{match[0]}`" if match else ""


def unknown_key(dotted: str) -> str:
    """Say that `dotted` is no key of a recipe, where that name does exist, and what stands beside it."""
    section, _, leaf = dotted.rpartition(".")
    elsewhere = [key for key in known_keys() if key.rpartition(".")[2] == leaf]
    if elsewhere:
        return f"`{dotted}` is no key of a recipe; did you mean `{elsewhere[0]}`?"
    beside = [key for key in known_keys() if key.rpartition(".")[0] == section]
    hint = nearest(dotted, beside) or nearest(leaf, [key.rpartition(".")[2] for key in beside]) or _anywhere(leaf)
    names = ", ".join(key.rpartition(".")[2] for key in beside)
    return f"`{dotted}` is no key of a recipe{hint}" + (f". Known here: {names}" if names else "")


def _anywhere(leaf: str) -> str:
    leaves = {key.rpartition(".")[2]: key for key in known_keys()}
    match = difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)
    return f"; the nearest known name is `{leaves[match[0]]}`" if match else ""


def _explain(fault: Any, tree: Mapping[str, Any]) -> str:
    path = _path_in(tree, fault["loc"])
    dotted = ".".join(str(part) for part in path)
    if fault["type"] == "extra_forbidden":
        return unknown_key(dotted) if not any(isinstance(part, int) for part in path) else _unknown_in_list(path)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not dotted:
        return message
    if fault["type"] == "value_error":
        return f"{dotted}.{message}"
    if fault["type"] == "missing":
        return f"{dotted}: this key is required and absent"
    if fault["type"] == "model_type":
        return f"{dotted}: a section of settings is wanted here, not {_short(fault['input'])}"
    return f"{dotted}: {message[:1].lower()}{message[1:]}, not {_short(fault['input'])}"


def _unknown_in_list(path: tuple[str | int, ...]) -> str:
    known = ["name", "weight", "params"]
    dotted = ".".join(str(part) for part in path)
    return f"`{dotted}` is no key of a reward term{nearest(str(path[-1]), known)}. Known here: {', '.join(known)}"


def _path_in(tree: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of pydantic's location that the user wrote: names of union branches are left out."""
    path: list[str | int] = []
    here = tree
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, Mapping) and (part in here or last):
            here = here.get(part)
        elif isinstance(here, (list, tuple)) and isinstance(part, int):
            here = here[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _section_in(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _is_list_of_sections(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple
