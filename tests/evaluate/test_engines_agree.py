"""Greedy evaluation of one model says the same through this process and through a real `vllm serve`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from open_rs.config.schema import EndpointConfig
from open_rs.evaluate.benchmarks import ARITHMETIC, load_sets
from open_rs.evaluate.protocols import PROTOCOLS, Protocol
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointConfig]:
    """The embedded model behind `vllm serve`."""
    with serve(embedded_model_directory(), tmp_path_factory.mktemp("served")) as served:
        yield EndpointConfig(url=f"{served.url}/v1")


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1) as running:
        yield running


def measure(
    engine: str, server: EndpointConfig, grader: Grader, protocol: Protocol = GREEDY, limit: int | None = None
) -> tuple[Evaluation, dict[str, Rollout]]:
    """What `open-rs evaluate open-rs-tiny --engine ENGINE` does, here with `--temperature 0 --samples 1`."""
    subject, sets = find_subject(EMBEDDED), load_sets([ARITHMETIC], limit=limit)
    with seat(subject, engine, server, 64) as chair:
        listening = Listening(chair.engine, {})
        found = evaluate(
            listening,
            chair.tokenizer,
            sets.problems,
            protocol,
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


def test_local_and_vllm_serve_agree_token_for_token_up_to_near_ties_and_in_their_scores(
    server: EndpointConfig, grader: Grader
) -> None:
    ours, ours_heard = measure("local", server, grader)
    theirs, theirs_heard = measure("endpoint", server, grader)
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


def test_a_limit_beyond_the_servers_context_is_lowered_and_not_refused(server: EndpointConfig, grader: Grader) -> None:
    asked = replace(PROTOCOLS["open-rs"], temperature=0.0)
    found, heard = measure("endpoint", server, grader, asked, limit=2)
    assert found.fingerprint["protocol"]["max_tokens"] < 2048 < asked.max_tokens
    assert all(len(rollout.prompt_tokens) + len(rollout.tokens) <= 2048 for rollout in heard.values())
    assert any("the model's context holds 2,048" in warning for warning in found.warnings)
