"""Everything that moves a score, written down and compared; and what weakens a result, said in plain words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from open_rs.evaluate.protocols import PROTOCOLS, Protocol
from open_rs.evaluate.result import BenchmarkResult
from open_rs.prompts import Prompt
from open_rs.run_dir import RunDir
from open_rs.types import Problem, UserError

SETTINGS = "evaluation.json"
PACKAGES = ("open-rs", "torch", "transformers", "vllm", "math-verify")
# Parts that may differ between a killed evaluation and its continuation: more samples, more benchmarks, other machine.
MAY_CHANGE = ("samples", "data", "prompts", "versions", "about")


def fingerprint(
    model: str,
    protocol: Protocol,
    sets: Mapping[str, Sequence[Problem]],
    prompts: Mapping[str, Prompt],
    tokenizer: Any,
    raw_gold: bool,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Model, prompt, sampling, data and software of an evaluation, as plain JSON."""
    samples = {name: protocol.num_samples(name) for name in sets}
    first = prompts[next(iter(sets.values()))[0].id]
    return {
        "model": model,
        "protocol": settings_of(protocol),
        "samples": samples,
        "chat_template": None if tokenizer.chat_template is None else digest(str(tokenizer.chat_template)),
        "first_prompt": first.text,
        "prompts": {name: digest(*(prompts[p.id].text for p in problems)) for name, problems in sets.items()},
        "data": {
            name: {"n": len(problems), "hash": digest(*(f"{p.id}\n{p.question}\n{p.answer}" for p in problems))}
            for name, problems in sets.items()
        },
        "raw_gold": raw_gold,
        "versions": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "about": dict(about),
    }


def settings_of(protocol: Protocol) -> dict[str, Any]:
    """How one sample is asked; the number of samples is no part of it."""
    settings = asdict(protocol)
    return {name: value for name, value in settings.items() if name not in ("samples", "samples_of")}


def check_continues(directory: Path, mark: Mapping[str, Any]) -> None:
    """Start an evaluation in `directory`, or go on with the one that is there if nothing that moves a score differs."""
    file = directory / SETTINGS
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        differing = [f"{name}: {old!r} there, {new!r} now" for name, old, new in differences(before, mark)]
        if differing:
            raise UserError(
                f"{directory}: holds an evaluation with other settings ({'; '.join(differing[:3])}); "
                "choose another --out, or repeat its settings to go on with it"
            )
    RunDir(directory).write_text(SETTINGS, json.dumps(mark, indent=1, ensure_ascii=False) + "\n")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What moves a score and differs between two fingerprints: (dotted name, old, new)."""
    found = [
        (name, old, new)
        for name, old, new in _leaves(before, now)
        if name.split(".")[0] not in (*MAY_CHANGE, "first_prompt")
    ]
    for part in ("data", "prompts"):
        shared = before.get(part, {}).keys() & now.get(part, {}).keys()
        found += [
            (f"{part}.{name}", before[part][name], now[part][name])
            for name in sorted(shared)
            if before[part][name] != now[part][name]
        ]
    return found


def warn(protocol: Protocol, results: Mapping[str, BenchmarkResult], mark: Mapping[str, Any]) -> list[str]:
    """Sentences about what weakens these numbers; `protocol` is what was asked in the end."""
    found = []
    if mark["chat_template"] is None:
        found.append(
            "the tokenizer has no chat template: the prompt is plain text, which chat models are not trained on"
        )
    for name, result in results.items():
        if len(result.problem_ids) * result.k < 100:
            width = 100 * result.ci95.width
            found.append(
                f"{name}: {len(result.problem_ids)} problems x {result.k} samples leave {width:.0f} points of doubt"
            )
        truncated = result.diagnostics["truncated"]
        if truncated is not None and truncated > 0.1:
            found.append(
                f"{name}: {100 * truncated:.0f} % of completions hit the limit of {protocol.max_tokens:,} tokens"
            )
        if protocol.temperature == 0 and result.k > 1:
            found.append(f"{name}: greedy samples repeat one another; {result.k} of them say no more than one")
    return found


def departures(asked: Protocol) -> list[str]:
    """What was asked otherwise than the protocol of that name says; scores of the two can't be compared."""
    named = PROTOCOLS.get(asked.name)
    if named is None:
        return []
    pairs = {name: (getattr(asked, name), getattr(named, name)) for name in ("max_tokens", "temperature", "top_p")}
    return [
        f"{name.replace('_', ' ')} {ours:,} instead of the {theirs:,} of `{named.name}`"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def digest(*texts: str) -> str:
    """Sixteen hexadecimal digits that change when any text does."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return sha.hexdigest()[:16]


def _leaves(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _leaves(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append((f"{prefix}{name}", old, new))
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
