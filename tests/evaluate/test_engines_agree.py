"""Greedy evaluation of one model says the same through this process and through a real `vllm serve`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from open_rs.config.schema import EndpointConfig
from open_rs.evaluate.benchmarks import ARITHMETIC, load_sets
from open_rs.evaluate.protocols import PROTOCOLS
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.run import evaluate
from open_rs.evaluate.subject import EMBEDDED, find_subject, seat
from open_rs.grading import Grader
from open_rs.models import CausalLM, embedded_model_directory, load_model
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.types import Rollout
from rollout.vllm_serve import serve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NEAR_TIE = 1e-3  # difference of the two largest logits below which rounding may decide
GREEDY = replace(PROTOCOLS["plain"], temperature=0.0, top_p=1.0, samples=1)


@dataclass
class Listening:
    """An engine that keeps what passes through it, since an evaluation keeps texts and no tokens."""

    engine: Engine
    heard: dict[str, Rollout]

    def load(self, model: Any, version: int) -> None:
        self.engine.load(model, version)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Rollout]:
        for rollout in self.engine.generate(requests, sampling):
            self.heard[rollout.problem_id] = rollout
            yield rollout

    def awake(self) -> AbstractContextManager[None]:
        return self.engine.awake()

    def close(self) -> None:
        self.engine.close()


def measure(engine: str, endpoint: EndpointConfig, grader: Grader) -> tuple[Evaluation, dict[str, Rollout]]:
    """What `open-rs evaluate open-rs-tiny --temperature 0 --samples 1 --engine ENGINE` does."""
    subject, sets = find_subject(EMBEDDED), load_sets([ARITHMETIC])
    with seat(subject, engine, endpoint, 64) as chair:
        listening = Listening(chair.engine, {})
        found = evaluate(
            listening,
            chair.tokenizer,
            sets.problems,
            GREEDY,
            model=subject.name,
            grader=grader,
            context_length=chair.context_length,
            about=chair.about,
        )
    return found, listening.heard


@torch.no_grad()
def gap_where_they_part(model: CausalLM, one: Rollout, other: Rollout) -> float:
    """By how much the learner prefers its first choice at the first token in which two greedy rollouts differ."""
    place = next(i for i, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=False)) if a != b)
    read = torch.tensor([[*one.prompt_tokens, *one.tokens[:place]]])
    likeliest = model.module(read, use_cache=False).logits[0, -1].float().topk(2)
    assert set(likeliest.indices.tolist()) == {one.tokens[place], other.tokens[place]}
    return float(likeliest.values[0] - likeliest.values[1])


def test_local_and_vllm_serve_agree_token_for_token_up_to_near_ties_and_in_their_scores(tmp_path: Path) -> None:
    with serve(embedded_model_directory(), tmp_path) as server, Grader(num_workers=1) as grader:
        url = EndpointConfig(url=f"{server.url}/v1")
        (ours, ours_heard), (theirs, theirs_heard) = measure("local", url, grader), measure("endpoint", url, grader)
    assert len(ours_heard) == len(theirs_heard) == len(ours.benchmarks[ARITHMETIC].problem_ids) == 256
    model = load_model(find_subject(EMBEDDED).model)
    parted = {
        name: gap_where_they_part(model, rollout, theirs_heard[name])
        for name, rollout in ours_heard.items()
        if rollout.tokens != theirs_heard[name].tokens
    }
    assert all(gap < NEAR_TIE for gap in parted.values()), parted
    assert len(parted) < 8, "near-ties are rare: so many differences have another cause"
    scores = [
        dict(zip(side.problem_ids, side.scores, strict=True))
        for side in (found.benchmarks[ARITHMETIC] for found in (ours, theirs))
    ]
    assert {name for name in scores[0] if scores[0][name] != scores[1][name]} <= set(parted)
    lengths = [result.diagnostics["tokens"] for result in (ours.benchmarks[ARITHMETIC], theirs.benchmarks[ARITHMETIC])]
    assert parted or lengths[0] == lengths[1], "both engines count the stop token"
