"""The stages that sample from a language model: pass rates, and judgements of questions; and the model behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from open_rs.config.curation import JudgeStage, PassRateStage
from open_rs.config.schema import ModelConfig, PromptConfig, RolloutConfig
from open_rs.data.judge import read_prompt, read_reply
from open_rs.data.pass_rate import WINDOW, Rate, Sampler, Store, Wanted, measure, problem_key
from open_rs.data.stages import Decision, Drop, Notes
from open_rs.grading import Grader
from open_rs.prompts import Prompt, build_messages
from open_rs.rollout.engine import Request, Sampling
from open_rs.run_dir import disk_errors
from open_rs.types import Problem

BuildSampler = Callable[[ModelConfig, RolloutConfig, PromptConfig, int], Sampler]  # the last is the seed
WEIGHTS = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "tokenizer*.json", "chat_template*")


def decide(
    stage: PassRateStage | JudgeStage,
    rows: Iterable[Problem],
    notes: Notes,
    build: BuildSampler,
    grader: Grader,
    cache_directory: Path,
    say: Callable[[str], None],
) -> Iterator[Decision]:
    """Run a stage that samples. Samples stay in `cache_directory / "samples"`, one file for each model and setting."""
    prompt = _prompt_of(stage)
    seed = stage.seed if isinstance(stage, PassRateStage) else 0
    sampler = build(stage.model, stage.rollout, prompt, seed)
    path = cache_directory / "samples" / f"{sampler.identity[:24]}.jsonl"
    notes["samples_file"] = path.name
    try:
        if isinstance(stage, PassRateStage):
            yield from _by_pass_rate(stage, rows, notes, sampler, grader, Store(path))
        else:
            yield from _by_judgement(rows, notes, sampler, path)
    finally:
        sampler.engine.close()


def model_identity(stage: PassRateStage | JudgeStage) -> str:
    """What a stage's samples depend on, as one hash: weights, prompt, sampling, seed."""
    seed = stage.seed if isinstance(stage, PassRateStage) else 0
    return identity(stage.model, stage.rollout, _prompt_of(stage), seed)


def identity(model: ModelConfig, rollout: RolloutConfig, prompt: PromptConfig, seed: int) -> str:
    """Hash of the weights (or of the server's name for them), the prompt, the sampling settings and the seed."""
    sampling = {
        name: getattr(rollout, name) for name in ("temperature", "top_p", "top_k", "min_p", "max_completion_length")
    }
    if rollout.engine == "endpoint":
        weights = f"{rollout.endpoint.url} {rollout.endpoint.model} {rollout.endpoint.api}"
    else:
        weights = _weights_digest(model.name_or_path, model.revision)
    material = [weights, prompt.system, prompt.user_template, sampling, seed]
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def build_sampler(model: ModelConfig, rollout: RolloutConfig, prompt: PromptConfig, seed: int) -> Sampler:
    """Load the model that a stage names into the engine that it names."""
    from open_rs.rollout import build_engine

    engine = build_engine(rollout)
    render = _chat_renderer(prompt) if _renders_itself(rollout) else _tokenizer_renderer(model, prompt)
    if rollout.engine == "endpoint":
        engine.load(None, 0)
    else:
        from open_rs.models import load_model

        engine.load(load_model(model), 0)
    sampling = Sampling(
        max_tokens=rollout.max_completion_length,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        min_p=rollout.min_p,
        seed=seed,
    )
    return Sampler(engine, render, sampling, identity(model, rollout, prompt, seed))


def _prompt_of(stage: PassRateStage | JudgeStage) -> PromptConfig:
    return stage.prompt if isinstance(stage, PassRateStage) else PromptConfig(user_template=read_prompt(stage.prompt))


def _renders_itself(rollout: RolloutConfig) -> bool:
    return rollout.engine == "endpoint" and rollout.endpoint.api == "chat"


def _chat_renderer(prompt: PromptConfig) -> Callable[[Problem], Prompt]:
    def render(problem: Problem) -> Prompt:
        messages = build_messages(problem, prompt.system, prompt.user_template)
        return Prompt(problem.id, messages, "", ())

    return render


def _tokenizer_renderer(model: ModelConfig, prompt: PromptConfig) -> Callable[[Problem], Prompt]:
    from open_rs.models import load_tokenizer
    from open_rs.prompts import render

    tokenizer = load_tokenizer(model)
    return lambda problem: render(problem, tokenizer, prompt.system, prompt.user_template)


@cache
def _weights_digest(name_or_path: str, revision: str) -> str:
    place = Path(name_or_path)
    if name_or_path == "open-rs-tiny":
        from open_rs.models import embedded_model_directory

        place = embedded_model_directory()
    if not place.is_dir():
        return f"{name_or_path}@{revision}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHTS for file in place.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _by_pass_rate(
    stage: PassRateStage, rows: Iterable[Problem], notes: Notes, sampler: Sampler, grader: Grader, store: Store
) -> Iterator[Decision]:
    wanted = Wanted(stage.half_width, stage.confidence, stage.min_samples, stage.max_samples)
    notes |= {"model": stage.model.name_or_path, "samples": 0, "tokens": 0, "truncated": 0, "widest_half_width": 0.0}
    for problem, rate in measure(rows, sampler, grader, wanted, store):
        notes["samples"] += rate.num_samples
        notes["tokens"] += rate.num_tokens
        notes["truncated"] += rate.num_truncated
        notes["widest_half_width"] = max(notes["widest_half_width"], round((rate.upper - rate.lower) / 2, 4))
        yield _in_band(stage, problem, rate)


def _in_band(stage: PassRateStage, problem: Problem, rate: Rate) -> Decision:
    if not rate.gradable:
        return Drop(problem, "the gold can't grade anybody", {"answer": problem.answer})
    known = {
        "pass_rate": round(rate.value, 4),
        "num_samples": rate.num_samples,
        "pass_rate_lower": round(rate.lower, 4),
        "pass_rate_upper": round(rate.upper, 4),
        "pass_rate_model": stage.model.name_or_path,
    }
    if rate.value > stage.below:
        return Drop(problem, f"solved by {stage.model.name_or_path} too often", known)
    if rate.value < stage.above:
        return Drop(problem, f"solved by {stage.model.name_or_path} too rarely", known)
    return replace(problem, meta={**problem.meta, **known})


def _by_judgement(rows: Iterable[Problem], notes: Notes, sampler: Sampler, path: Path) -> Iterator[Decision]:
    replies = _read_replies(path)
    notes |= {"asked": 0, "unclear": 0}
    iterator = iter(rows)
    while window := list(islice(iterator, WINDOW)):
        missing = {problem_key(problem): problem for problem in window if problem_key(problem) not in replies}
        notes["asked"] += len(missing)
        replies |= _ask(missing, sampler, path)
        for problem in window:
            reply = replies[problem_key(problem)]
            verdict = read_reply(reply)
            notes["unclear"] += verdict is None
            yield Drop(problem, "the judge would not use it", {"reply": reply}) if verdict else problem


def _ask(problems: Mapping[str, Problem], sampler: Sampler, path: Path) -> dict[str, str]:
    """One greedy reply for each problem, on disk as soon as it is there."""
    requests: list[Request] = []
    for key, problem in problems.items():
        prompt = sampler.render(problem)
        requests.append(Request(Prompt(key, prompt.messages, prompt.text, prompt.tokens), (0,)))
    replies: dict[str, str] = {}
    if not requests:
        return replies
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file, sampler.engine.awake():
            for rollout in sampler.engine.generate(requests, sampler.sampling):
                replies[rollout.problem_id] = rollout.text
                file.write(json.dumps({"problem": rollout.problem_id, "reply": rollout.text}) + "\n")
                file.flush()
    return replies


def _read_replies(path: Path) -> dict[str, str]:
    replies: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row: dict[str, Any] = json.loads(line)
                replies[row["problem"]] = row["reply"]
            except (ValueError, KeyError):
                continue  # the last line of a run that was killed while it wrote
    return replies
