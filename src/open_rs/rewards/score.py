"""Owns the weighted sum of reward terms, and the checks that keep a broken reward from teaching silently."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any

from open_rs.config.schema import RewardConfig, RewardTermConfig
from open_rs.rewards.terms import REFUSED, TERMS
from open_rs.rewards.trl import from_trl
from open_rs.types import Group, Score, UserError

GroupReward = Callable[[Group], Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Term:
    """One reward of a recipe, its parameters bound."""

    name: str
    weight: float
    function: GroupReward


def build_terms(config: RewardConfig) -> tuple[Term, ...]:
    """The recipe's terms, checked before anything is sampled. Raises `UserError` for a name or parameter that is not
    known.
    """
    names = [term.name for term in config.terms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"reward.terms: `{twice}` stands there twice; keep one and add the weights")
    if not names:
        raise UserError("reward.terms: no reward, so nothing to learn; add for instance `name: accuracy`")
    return tuple(Term(term.name, term.weight, _bind(term)) for term in config.terms)


def score(group: Group, terms: Sequence[Term]) -> list[Score]:
    """One `Score` a completion, in the group's order.

    The total is `sum(weight * value)`; it is None where any term is None. `terms` of a score are unweighted.
    Raises `UserError` with the term's name where a reward raises, has the wrong length, or gives NaN, infinity or no
    number.
    """
    columns = {term.name: _evaluate(term, group) for term in terms}
    return [
        _weigh({name: column[index] for name, column in columns.items()}, terms) for index in range(len(group.rollouts))
    ]


def _weigh(values: dict[str, float | None], terms: Sequence[Term]) -> Score:
    total = 0.0
    for term in terms:
        value = values[term.name]
        if value is None:
            return Score(None, values)
        total += term.weight * value
    return Score(total, values)


def _evaluate(term: Term, group: Group) -> list[float | None]:
    where = f"reward `{term.name}` on problem `{group.problem.id}`"
    try:
        values = term.function(group)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: it raised {type(error).__name__}: {error}; mend it, or take it out") from error
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise UserError(f"{where}: it gave {type(values).__name__}, not a list of numbers")
    if len(values) != len(group.rollouts):
        raise UserError(f"{where}: it gave {len(values)} values for {len(group.rollouts)} completions")
    return [_number(value, where) for value in values]


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UserError(f"{where}: it gave {value!r}; give a finite number, or None where the problem can't be scored")
    return float(value)


def _bind(term: RewardTermConfig) -> GroupReward:
    if term.name in REFUSED:
        raise UserError(f"reward.terms: `{term.name}` is refused: {REFUSED[term.name]}; use `accuracy`")
    function = _imported(term.name) if ":" in term.name else TERMS.get(term.name)
    if function is None:
        near = get_close_matches(term.name, TERMS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(TERMS)}, or `module:function`"
        raise UserError(f"reward.terms: `{term.name}` is not a reward; {hint}")
    _check_parameters(term, function)
    bound = partial(function, **term.params)
    return from_trl(bound) if "completions" in inspect.signature(function).parameters else bound


def _imported(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"reward.terms: `{name}` can't be imported ({error}); is it on PYTHONPATH, as `module:function`?"
        ) from error
    if not callable(function):
        raise UserError(f"reward.terms: `{name}` is not a function")
    return function


def _check_parameters(term: RewardTermConfig, function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return
    known = list(signature.parameters)[1:]
    unknown = next((name for name in term.params if name not in known), None)
    if unknown is not None:
        raise UserError(
            f"reward.terms: `{term.name}` has no parameter `{unknown}`; it has {', '.join(known) or 'none'}"
        )
