"""What a run logs and what `docs/metrics.md` defines are the same keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

from open_rs.train.metrics import count, summarise
from open_rs.types import Group, Problem, Rollout, Score, Verdict

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def documented_keys() -> set[str]:
    cells = re.findall(r"^\| (`[^|]+`) \|", DOCUMENT.read_text(), flags=re.M)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def test_every_logged_key_is_defined_and_every_defined_key_is_logged(finished_run: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    logged = {"reward_<term>" if key.startswith("reward_") else key for line in lines for key in line}
    never_right = {"right_tokens"}  # absent where no completion is right, as with a random model
    assert logged | never_right == documented_keys()


def rollout(tokens: int) -> Rollout:
    return Rollout("p", 0, (1, 2), tuple(range(tokens)), None, "", "stop", 0)


def test_counts_of_two_processes_add_up_to_the_whole() -> None:
    problem = Problem("p", "q", "a", "test")
    right, wrong, faulty = (Verdict(value, "1", "") for value in (True, False, None))
    groups = [Group(problem, (rollout(4), rollout(8)), (right, wrong)), Group(problem, (rollout(2),), (faulty,))]
    scores = [[Score(3.0, {"a": 1.0}), Score(1.0, {"a": 0.0})], [Score(None, {"a": None})]]
    whole = count(groups, scores, ("a",))
    parts = [count([group], [row], ("a",)) for group, row in zip(groups, scores, strict=True)]
    assert whole == {key: parts[0][key] + parts[1][key] for key in whole}
    row = summarise(whole)
    assert (row["reward"], row["reward_a"], row["accuracy"]) == (2.0, 0.5, 0.5)
    assert (row["right_tokens"], row["wrong_tokens"]) == (4.0, 8.0)
