"""Reading a recipe: a shipped name or a YAML file, its one `extends`, dotted overrides, resolved into a `Recipe`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from open_rs.config.schema import Recipe
from open_rs.config.translate import Translation, is_flat, translate
from open_rs.config.validate import nearest, unknown_key, validate
from open_rs.types import UserError

SHIPPED = Path(str(resources.files("open_rs") / "recipes"))
COMMAND_LINE = "set on the command line"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe and, where its file was a flat one in TRL's style, what became of every key."""

    recipe: Recipe
    translation: Translation | None


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by shipped name or by path, and apply `section.key=value` overrides, whose values are YAML.

    Raises UserError for a missing file, an unknown name or key, a value out of range, or a circle of `extends`.
    `load_recipe("open-rs3", ["train.max_steps=3", "reward.terms.1.weight=1.5"])`
    """
    return load(name_or_path, overrides).recipe


def load(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    written_for: str | None = None,
    processes: int | None = None,
) -> Loaded:
    """As `load_recipe`, with the translation; `written_for` and `processes` are what a flat file can't say itself."""
    path = find_recipe(name_or_path)
    tree = read_yaml(path)
    translation = translate(tree, str(path), written_for, processes) if is_flat(tree) else None
    tree = read_tree(path) if translation is None else {"name": path.stem, **translation.tree}
    return Loaded(validate(override(tree, overrides), where=_label(path)), translation)


def find_recipe(name_or_path: str | Path) -> Path:
    """The file behind a shipped name (`open-rs3`) or a path. Raises UserError with the nearest shipped name."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.name == str(name_or_path) and (SHIPPED / f"{path.name}.yaml").is_file():
        return SHIPPED / f"{path.name}.yaml"
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise UserError(
            f"{path}: no such recipe file; give a path to a YAML file, or one of {', '.join(shipped_names())}"
        )
    known = shipped_names()
    raise UserError(f"`{name_or_path}` is no recipe{nearest(str(name_or_path), known)}. Shipped: {', '.join(known)}")


def shipped_names() -> list[str]:
    """Names of the recipes in the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def resolved_yaml(recipe: Recipe) -> str:
    """Every value of the recipe as YAML that loads again to an equal recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in `path` laid over the one that it extends. Raises UserError where the chain meets itself."""
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(_label(file) for file in (*seen[seen.index(here) :], here))
        raise UserError(f"{_label(here)}: extends itself ({chain}); remove one `extends`")
    tree = read_yaml(path)
    if is_flat(tree):
        return {"name": path.stem, **translate(tree, str(path)).tree}
    parent = tree.pop("extends", None)
    if parent is None:
        return {"name": path.stem, **tree}
    if not isinstance(parent, str):
        raise UserError(f"{_label(path)}: extends: one recipe name or path, not {parent!r}")
    beside = path.parent / parent
    base = read_tree(beside if beside.is_file() else find_recipe(parent), (*seen, here))
    return merge(base, {"name": path.stem, **tree})


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError for a syntax error, a repeated key, or anything but a mapping."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{_label(path)}: not readable as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{_label(path)}: a recipe is a mapping of sections, not a {type(tree).__name__}")
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`: mappings merge, everything else replaces; a reason outlives only the value it explains."""
    merged = _merge_values(base, over)
    reasons = {key: why for key, why in (base.get("because") or {}).items() if not _is_set(over, key)}
    merged["because"] = reasons | (over.get("because") or {})
    return merged


def override(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` assignments in order and note them in `because`.

    What was said before of the same thing yields: `data.path=...` unsets `data.name`, and `train.max_steps=3` ends the
    run there, so that a budget may shorten it but never stretch it.
    """
    result = _copy(tree)
    reasons = dict(result.get("because") or {})
    parsed = [_parse_override(text) for text in overrides]
    given = {dotted for dotted, _ in parsed}
    yielding = [(key, value, f"{cause} was {COMMAND_LINE}") for cause, key, value in YIELDS if cause in given - {key}]
    assignments = [(dotted, value, COMMAND_LINE) for dotted, value in parsed]
    for dotted, value, why in [*(row for row in yielding if row[0] not in given), *assignments]:
        _assign(result, dotted, value)
        reasons = {key: text for key, text in reasons.items() if key != dotted and not key.startswith(dotted + ".")}
        reasons[dotted] = why
    return {**result, "because": reasons}


def _parse_override(text: str) -> tuple[str, Any]:
    dotted, equals, value = text.partition("=")
    dotted = dotted.strip()
    if not equals or not dotted:
        raise UserError(f"`{text}`: an override is written section.key=value, for example train.max_steps=100")
    try:
        return dotted, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{dotted}: `{value}` is not readable as YAML: {error}") from None


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    here: Any = tree
    for part in parents:
        if isinstance(here, list):
            here = here[_index(dotted, part, here)]
            continue
        if not isinstance(here.get(part), (dict, list)):
            here[part] = _schema_default(dotted, part) if part == "terms" else {}
        here = here[part]
    if isinstance(here, list):
        here[_index(dotted, leaf, here)] = value
    elif isinstance(here, dict):
        here[leaf] = value


def _index(dotted: str, part: str, items: list[Any]) -> int:
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise UserError(f"{dotted}: `{part}` numbers an entry of a list of {len(items)}; use 0 to {len(items) - 1}")


def _schema_default(dotted: str, part: str) -> Any:
    if not dotted.startswith("reward.terms."):
        raise UserError(unknown_key(dotted))
    return [term.model_dump() for term in Recipe().reward.terms]


def _merge_values(base: Any, over: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    return {**base, **{key: _merge_values(base.get(key), value) for key, value in over.items()}}


def _is_set(tree: Mapping[str, Any], dotted: str) -> bool:
    here: Any = tree
    for part in dotted.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return False
        here = here[part]
    return True


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _label(path: Path) -> str:
    return path.stem if path.parent.resolve() == SHIPPED.resolve() else str(path)


class _Loader(yaml.SafeLoader):
    """YAML with the floats of YAML 1.2 (`1e-6` is a number), where a key has one value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key, value = self.construct_object(key_node, deep=True), self.construct_object(value_node, deep=True)
            if key in seen and seen[key] != value:
                problem = f"`{key}` is given twice, as {seen[key]!r} and as {value!r}; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            seen[key] = value
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Dumper(yaml.SafeDumper):
    """YAML that writes texts of several lines as blocks."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)

YIELDS: tuple[tuple[str, str, Any], ...] = (  # (given on the command line, the key that yields to it, its new value)
    ("data.path", "data.name", None),
    ("data.name", "data.path", None),
    ("train.max_steps", "train.num_train_epochs", None),
    ("train.max_steps", "budget.stretch", False),
    ("train.num_train_epochs", "budget.stretch", False),
)
