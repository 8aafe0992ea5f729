"""`open-rs evaluate` and `open-rs compare` as a person runs them, on tiny models and small files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from open_rs.cli.compare import command as compare_command
from open_rs.cli.evaluate import command as evaluate_command
from open_rs.evaluate.result import Evaluation
from open_rs.types import UserError
from rollout.small_server import SmallServer


def run(command: Any, *words: object) -> str:
    """What the command prints on standard output; its UserError is raised here as it is."""
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False).stdout


def evaluate(*words: object) -> str:
    return run(evaluate_command, *words)


def write_exam(path: Path, numbers: range) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": str(i), "problem": f"{i} + 1 =", "answer": str(i + 1)} for i in numbers)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result directory: ten problems of `exam`, two samples, sixteen tokens."""
    place = tmp_path_factory.mktemp("base")
    exam = write_exam(place / "exam.jsonl", range(10))
    evaluate(checkpoint, "--benchmarks", exam, "--samples", 2, "--max-tokens", 16, "--out", place / "results")
    return place / "results"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: results go to `runs/` below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as small:
        yield small


def test_a_score_alone_says_nothing_of_a_gain(checkpoint: Path, here: Path) -> None:
    shown = evaluate(checkpoint, "--benchmarks", write_exam(here / "exam.jsonl", range(2)), "--max-tokens", 4)
    assert "a score alone says nothing of a gain" in shown
    assert "results  runs/evaluations/" in shown


def test_a_baseline_with_other_problems_is_compared_on_the_intersection_and_says_so(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    exam = write_exam(tmp_path / "exam.jsonl", range(4, 14))
    asked = ("--benchmarks", exam, "--samples", 2, "--max-tokens", 16, "--out", tmp_path / "new")
    shown = evaluate(checkpoint, *asked, "--baseline", base)
    assert "8 problems on one side only; compared on the 6 shared" in shown
    found = json.loads(run(compare_command, base, tmp_path / "new", "--json"))
    assert (found["benchmarks"]["exam"]["n"], found["benchmarks"]["exam"]["dropped"]) == (6, 8)


def test_a_baseline_of_another_protocol_is_refused_before_a_token_is_sampled(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    exam = write_exam(tmp_path / "exam.jsonl", range(10))
    asked = ("--benchmarks", exam, "--temperature", 0.9, "--out", tmp_path / "new")
    with pytest.raises(UserError, match=r"asked differently .*temperature"):
        evaluate(checkpoint, *asked, "--baseline", base)
    assert not (tmp_path / "new").exists()


def test_a_run_and_its_base_model_are_asked_the_same(finished_run: Path, checkpoint: Path, here: Path) -> None:
    """The run's recipe says how both are asked; asked each in its own way they could not be compared."""
    asked = ("--limit", 3, "--samples", 2, "--out", here / "trained")
    found = json.loads(evaluate(finished_run, *asked, "--baseline", checkpoint, "--json"))
    protocols = [found[side]["fingerprint"]["protocol"] for side in ("evaluation", "baseline")]
    assert protocols[0] == protocols[1]
    assert found["comparison"]["benchmarks"]["arithmetic"]["n"] == 3


def test_a_published_name_is_a_baseline_that_can_not_be_paired(checkpoint: Path, here: Path) -> None:
    asked = ("--benchmarks", write_exam(here / "aime24.jsonl", range(3)), "--max-tokens", 4, "--baseline", "open-rs3")
    shown = evaluate(checkpoint, *asked)
    assert "so nothing is paired" in shown
    assert "-46.7" in shown


def test_the_same_model_twice_is_told_apart_by_directory(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "again")
    shown = json.loads(run(compare_command, base, tmp_path / "again", "--json"))
    assert (shown["baseline"].split()[-1], shown["candidate"].split()[-1]) == ("(results)", "(again)")


def test_sampling_goes_on_until_the_error_is_below_the_target(tmp_path: Path) -> None:
    asked = ("--limit", 8, "--until-se", 7, "--max-tokens", 96, "--out", tmp_path / "out")
    found = json.loads(evaluate("open-rs-tiny", *asked, "--json"))["benchmarks"]["arithmetic"]
    assert found["sampling_error"] <= 0.07
    rows = (tmp_path / "out" / "completions.jsonl").read_text().splitlines()
    assert len(rows) == 8 * found["k"] > 8 * 4, "four samples were not enough, and none was sampled twice"


def test_every_checkpoint_is_measured_on_held_out_problems_and_the_best_goes_on(
    finished_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    exam = write_exam(tmp_path / "exam.jsonl", range(3))
    words = ("--checkpoints", "all", "--select", "validation", "--benchmarks", exam, "--samples", 2)
    found = json.loads(evaluate(copy, *words, "--max-tokens", 16, "--json"))
    steps = [path.name for path in sorted((copy / "checkpoints").iterdir())]
    assert [row["model"] for row in found["checkpoints"]] == steps
    assert found["best"] in steps
    assert found["benchmarks"]["benchmarks"]["exam"]["n"] == 3
    results = copy / "results" / "checkpoints"
    assert Evaluation.load(results / "validation" / steps[0]).benchmarks["held_out"].k == 2
    assert (results / "benchmarks" / found["best"] / "results.json").is_file()
    assert "Why both sides answer the same problems" in (copy / "report.html").read_text()


def test_a_server_is_evaluated_and_nothing_is_tokenised_twice(server: SmallServer, tmp_path: Path) -> None:
    server.completion = {"text": "so</think>\\boxed{4}"}  # the model's template opens the reasoning
    exam = write_exam(tmp_path / "exam.jsonl", range(2, 5))
    words = ("--engine", "endpoint", "--url", server.url, "--samples", 2, "--benchmarks", exam)
    found = json.loads(evaluate("open-rs-tiny", *words, "--out", tmp_path / "out", "--json"))
    assert found["benchmarks"]["exam"]["avg"] == pytest.approx(1 / 3)
    assert found["benchmarks"]["exam"]["diagnostics"]["tokens"]["mean"] == 3, "as the server counted"
    assert found["fingerprint"]["about"] == {"engine": "endpoint", "api": "completions"}
    assert len({body["seed"] for body in server.bodies}) == len(server.bodies) == 6
    assert all(isinstance(body["prompt"], list) for body in server.bodies), "token ids, so that nothing is added"


def test_a_model_that_only_its_server_knows_is_asked_by_chat(server: SmallServer, tmp_path: Path) -> None:
    server.completion = {"message": {"content": "The answer is 3."}}
    exam = write_exam(tmp_path / "aime24.jsonl", range(2, 4))
    words = ("--engine", "endpoint", "--url", server.url, "--api", "chat", "--samples", 1, "--benchmarks", exam)
    shown = evaluate("Open-RS3", *words, "--out", tmp_path / "out", "--baseline", "still-3")
    assert "The last line of your response should be" in server.bodies[0]["messages"][0]["content"]
    assert "AIME24" in shown
    assert "so nothing is paired" in shown
    assert "aime24: published 46.7, measured 50.0" in shown
    assert "otherwise than there: 2 of 30 problems asked, 100.0 % of answers read outside a box" in shown


def test_a_server_with_a_short_context_gets_a_limit_that_fits(server: SmallServer, tmp_path: Path) -> None:
    server.max_model_len = 600
    exam = write_exam(tmp_path / "exam.jsonl", range(2))
    words = ("--engine", "endpoint", "--url", server.url, "--protocol", "plain", "--samples", 1)
    found = json.loads(evaluate("open-rs-tiny", *words, "--benchmarks", exam, "--out", tmp_path / "out", "--json"))
    assert all(len(body["prompt"]) + body["max_tokens"] <= 600 for body in server.bodies)
    assert any("the model's context holds 600" in text for text in found["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--select", "validation"], "add --checkpoints all"),
        (["--checkpoints", "all", "--baseline", "x"], "open-rs compare"),
        (["--checkpoints", "all"], "no run here"),
        (["--samples", "0"], "at least 1 sample"),
        (["--benchmarks", "arithmetik"], "did you mean `arithmetic`"),
        (["--protocol", "open-r"], "did you mean `open-rs`"),
        (["--benchmarks", "arithmetic", "--until-se", "0", "--limit", "1"], "--until-se"),
        (["--load-outputs", "x.jsonl"], "give one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_meant_is_refused(checkpoint: Path, here: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(checkpoint, *words)


def test_the_checkpoints_of_a_server_are_not_to_be_had(finished_run: Path) -> None:
    with pytest.raises(UserError, match="a server holds one model"):
        evaluate(finished_run, "--checkpoints", "all", "--engine", "endpoint")


def test_completions_made_elsewhere_have_no_baseline_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="open-rs compare"):
        evaluate("--load-outputs", tmp_path / "x.jsonl", "--baseline", tmp_path)


def test_a_half_written_last_line_of_an_outputs_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "o.jsonl"
    file.write_text('{"problem": "Q", "gold": "1", "completion": "\\\\boxed{1}"}\n{"problem": "Q2", "go')
    with pytest.raises(UserError, match="line 2: not valid JSON"):
        evaluate("--load-outputs", file)


def test_a_half_written_last_line_of_a_killed_evaluation_is_sampled_again(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "cut")
    log = tmp_path / "cut" / "completions.jsonl"
    log.write_bytes(log.read_bytes()[:-30])
    exam = base.parent / "exam.jsonl"
    evaluate(checkpoint, "--benchmarks", exam, "--samples", 2, "--max-tokens", 16, "--out", tmp_path / "cut")
    assert log.read_bytes() == (base / "completions.jsonl").read_bytes()
