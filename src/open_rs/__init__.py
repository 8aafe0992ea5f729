"""Open-RS: raise the reasoning of a small language model on a small budget, and prove it.

The verbs and the nouns, loaded when first used: `from open_rs import curate, train, evaluate, grade, load_recipe`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from open_rs.api import curate, evaluate, grade, train
    from open_rs.config.load import load_recipe
    from open_rs.types import Group, Problem, Rollout, Score, UserError, Verdict

_HOMES = {
    "curate": "open_rs.api",
    "evaluate": "open_rs.api",
    "grade": "open_rs.api",
    "train": "open_rs.api",
    "load_recipe": "open_rs.config.load",
    **dict.fromkeys(("Problem", "Rollout", "Verdict", "Group", "Score", "UserError"), "open_rs.types"),
}
__all__ = [  # noqa: RUF022  (the reading order)
    "curate", "train", "evaluate", "grade", "load_recipe",
    "Problem", "Rollout", "Verdict", "Group", "Score", "UserError",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'open_rs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
