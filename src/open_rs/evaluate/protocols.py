"""How a benchmark is asked: prompt, sampling, limit and number of samples, as the paper and its critics did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from open_rs.config.schema import Recipe
from open_rs.rollout.engine import Sampling
from open_rs.types import UserError

# The paper's user turn (open-rs, `src/open_r1/evaluate.py`): two spaces after "clearly." are in the release.
PAPER_TEMPLATE = (
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
    "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
    "answering.\n\n{question}"
)
PAPER_BENCHMARKS = ("aime24", "math_500", "amc23", "minerva", "olympiadbench")
SMALL_BENCHMARKS = ("aime24", "aime25", "amc23", "amc22_23")


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of asking. `samples_of` overrides `samples` for single benchmarks."""

    name: str
    user_template: str = "{question}"
    system: str | None = None
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 32_768
    seed: int = 0
    samples: int = 1
    samples_of: Mapping[str, int] = field(default_factory=dict)

    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, self.seed)

    def num_samples(self, benchmark: str) -> int:
        return self.samples_of.get(benchmark, self.samples)


@dataclass(frozen=True, slots=True)
class Preset:
    """Which benchmarks, and how many samples of each."""

    benchmarks: tuple[str, ...]
    samples: int
    samples_of: Mapping[str, int] = field(default_factory=dict)


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; an unknown one is a UserError that shows the nearest."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = get_close_matches(name, PROTOCOLS, n=1, cutoff=0.4)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UserError(f"--protocol {name}: no such protocol; {hint}known: {', '.join(PROTOCOLS)}")


def protocol_of_recipe(recipe: Recipe) -> Protocol:
    """Ask as the recipe trained: its prompt and its limit, and the sampling of its validation."""
    return Protocol(
        name=f"recipe {recipe.name}",
        user_template=recipe.prompt.user_template,
        system=recipe.prompt.system,
        temperature=recipe.validation.temperature,
        top_p=recipe.validation.top_p,
        max_tokens=recipe.rollout.max_completion_length,
        samples=recipe.validation.samples,
    )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("open-rs", PAPER_TEMPLATE),  # arXiv 2503.16219: one sample
        Protocol(  # arXiv 2504.07086: 10 seeds of the small sets, 3 of the others
            "sober",
            PAPER_TEMPLATE,
            temperature=0.8,
            top_p=0.9,
            samples=3,
            samples_of=dict.fromkeys(SMALL_BENCHMARKS, 10),
        ),
        Protocol(  # DeepScaleR's evaluation: 16 samples, the training prompt
            "deepscaler",
            "{question} Let's think step by step and output the final answer within \\boxed{}.",
            samples=16,
        ),
        Protocol("plain", samples=8, max_tokens=1024),  # the question alone: the embedded model and the arithmetic task
    )
}
PRESETS: dict[str, Preset] = {
    "quick": Preset(("aime24", "amc23"), 4),
    "standard": Preset(PAPER_BENCHMARKS, 4, dict.fromkeys(SMALL_BENCHMARKS, 16)),
    "full": Preset((*PAPER_BENCHMARKS, "aime25", "amc22_23"), 16, dict.fromkeys(SMALL_BENCHMARKS, 64)),
}
