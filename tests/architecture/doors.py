"""The doors of the house as a table, and a reader that finds every import which goes through a wall."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Ground floor first: a room imports only rooms that stand earlier.
ROOMS = (
    "types", "stats", "config", "prompts", "run_dir", "grading", "rewards", "models", "rollout", "data", "evaluate",
    "train", "report", "doctor", "api", "cli",
)  # fmt: skip

FORBIDDEN_ROOMS = {"evaluate": {"rewards", "train"}}
ONLY_CALLERS = {"report": {"cli", "api"}, "doctor": {"cli", "api"}}

# package -> places (dotted prefixes below open_rs) that may import it
PACKAGE_DOORS = {
    "torch": (
        "models",
        "rollout.local",
        "rollout.vllm",
        "rollout.decode",
        "rollout.attention",
        "rollout.projection",
        "rollout.native",
        "rollout.cache",
        "rollout.sampling",
        "rollout.general",
        "rollout.graphs",
        "train",
        "assets",
    ),
    "transformers": ("models", "train", "rollout.local", "rollout.general", "assets"),
    "accelerate": ("train.policy",),
    "peft": ("models", "rollout.projection"),
    "vllm": ("rollout.vllm",),
    "math_verify": ("grading",),
    "sympy": ("grading",),
    "latex2sympy2_extended": ("grading",),
    "datasets": ("data.sources",),
    "scipy": ("stats", "evaluate"),
    "datasketch": ("data",),
    "trl": (),
}


@dataclass(frozen=True, order=True)
class Import:
    """`where` (dotted module) imports `what` (dotted name) on a line; `lazy` inside a function or TYPE_CHECKING."""

    where: str
    line: int
    what: str
    lazy: bool


def read_imports(package: Path) -> list[Import]:
    """Every import below `package` (the directory `open_rs`), relative ones resolved."""
    found: list[Import] = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        is_package = parts[-1] == "__init__"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_top = set(map(id, tree.body))
        for node in ast.walk(tree):
            lazy, line = id(node) not in at_top, getattr(node, "lineno", 0)
            found.extend(Import(module, line, name, lazy) for name in _names(node, module, is_package))
    return found


def violations(imports: list[Import]) -> list[str]:
    """Sentences, one for each wall broken: an upward import, a forbidden room, a package outside its door, a cycle."""
    return sorted({*_room_violations(imports), *_package_violations(imports), *_cycles(imports)})


def _names(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".") if is_package else module.split(".")[:-1]
        prefix = ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])
        source = prefix if node.level else (node.module or "")
        yield from (f"{source}.{alias.name}" for alias in node.names)


def _room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "open_rs" and len(parts) > 1 and parts[1] in ROOMS else None


def _room_violations(imports: list[Import]) -> Iterator[str]:
    for item in imports:
        here, there = _room(item.where), _room(item.what)
        if here is None or there is None or here == there:
            continue
        place = f"{item.where}:{item.line}"
        if ROOMS.index(there) > ROOMS.index(here):
            yield f"{place} imports {item.what}: `{there}` stands above `{here}`"
        if there in FORBIDDEN_ROOMS.get(here, ()):
            yield f"{place} imports {item.what}: `{here}` must not know `{there}`"
        if here not in ONLY_CALLERS.get(there, {here}):
            yield f"{place} imports {item.what}: only {' and '.join(sorted(ONLY_CALLERS[there]))} may"


def _package_violations(imports: list[Import]) -> Iterator[str]:
    for item in imports:
        doors = PACKAGE_DOORS.get(item.what.split(".")[0])
        inside = item.where.removeprefix("open_rs").lstrip(".")
        if doors is not None and not any(
            inside == door or inside.startswith((f"{door}.", f"{door}_")) for door in doors
        ):
            yield f"{item.where}:{item.line} imports {item.what}: only {', '.join(doors) or 'nobody'} may"


def _cycles(imports: list[Import]) -> Iterator[str]:
    modules = {item.where for item in imports}
    edges: dict[str, set[str]] = {module: set() for module in modules}
    for item in imports:
        target = item.what if item.what in modules else item.what.rpartition(".")[0]
        if target in modules and target != item.where and not item.lazy:
            edges[item.where].add(target)
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> Iterator[str]:
        if module in path:
            circle = path[path.index(module) :]
            yield f"cycle: {' -> '.join((*circle, module))}"
            return
        if module in done:
            return
        for target in sorted(edges[module]):
            yield from walk(target, (*path, module))
        done.add(module)

    for module in sorted(modules):
        yield from walk(module, ())
