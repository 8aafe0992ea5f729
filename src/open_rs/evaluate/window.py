"""Fitting a protocol into a model's context: a lower limit where it must be, and prompts too long to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from open_rs.evaluate.protocols import Protocol
from open_rs.prompts import Prompt
from open_rs.types import UserError


@dataclass(frozen=True, slots=True)
class Fitted:
    """The protocol as it can be run, problems whose prompt leaves no room for an answer, and what to tell people."""

    protocol: Protocol
    too_long: frozenset[str]
    warnings: tuple[str, ...]


def fit(protocol: Protocol, prompts: Mapping[str, Prompt], context_length: int | None) -> Fitted:
    """Lower the limit to what the context leaves behind the longest prompt that fits.

    A prompt fits when it leaves the protocol's limit or half of the context, whichever is less. The others can't be
    answered by this model and count as wrong. Raises UserError when no prompt fits.
    """
    if context_length is None:
        return Fitted(protocol, frozenset(), ())
    room = min(protocol.max_tokens, context_length // 2)
    lengths = {name: len(prompt.tokens) for name, prompt in prompts.items()}
    fitting = [length for length in lengths.values() if length + room <= context_length]
    if not fitting:
        raise UserError(
            f"no prompt fits into the model's context of {context_length} tokens (the shortest has "
            f"{min(lengths.values())}); use a model with a longer context"
        )
    limit = min(protocol.max_tokens, context_length - max(fitting))
    too_long = frozenset(name for name, length in lengths.items() if length + room > context_length)
    warnings = []
    if limit < protocol.max_tokens:
        warnings.append(
            f"the limit is {limit:,} tokens, below the protocol's {protocol.max_tokens:,}: the model's context holds "
            f"{context_length:,}; scores are lower for it"
        )
    if too_long:
        warnings.append(f"{len(too_long)} prompts are too long for the model's context and count as wrong")
    return Fitted(replace(protocol, max_tokens=limit), too_long, tuple(warnings))
