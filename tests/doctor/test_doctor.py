"""The doctor catches what would waste a run, and says it in words that help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from open_rs.cli.check import command
from open_rs.config.load import load_recipe
from open_rs.doctor.examine import Diagnosis, examine
from open_rs.doctor.findings import Prompts, check_prompts

SMALL = [
    "validation.num_problems=4",
    "train.prompts_per_step=2",
    "rollout.max_completion_length=64",
    "model.device=cpu",
]
DEMANDS_THINK = 'reward.terms=[{name: "doctor.flawed_rewards:opens_and_closes"}]'


def diagnose(*overrides: str, allow_constant: bool = False) -> Diagnosis:
    return examine(load_recipe("demo", [*SMALL, *overrides]), allow_constant)


def words(diagnosis: Diagnosis, level: str) -> str:
    return "\n".join(f"{finding.topic}: {finding.text}" for finding in diagnosis.findings if finding.level == level)


def test_a_sound_recipe_is_fine_and_everything_is_measured() -> None:
    diagnosis = diagnose("budget.gpu_hour_usd=1")
    assert not diagnosis.is_refused
    assert diagnosis.sampled.num_rollouts in (8, 32)
    assert diagnosis.projection.pace.sampled_per_second > 0
    assert diagnosis.projection.usd == pytest.approx(diagnosis.projection.seconds / 3600)
    assert diagnosis.prompts.first.endswith("<think>\n")
    assert "<|im_end|>" in words(diagnosis, "fine")


def test_a_reward_that_demands_the_opening_tag_is_refused_with_the_cause() -> None:
    diagnosis = diagnose(DEMANDS_THINK)
    assert diagnosis.is_refused
    refused = words(diagnosis, "refused")
    assert all(
        part in refused for part in ("`<think>`", "chat template has already written", "--allow-constant-reward")
    )


def test_a_constant_reward_can_be_allowed() -> None:
    diagnosis = diagnose(DEMANDS_THINK, allow_constant=True)
    assert not diagnosis.is_refused
    assert "`<think>`" in words(diagnosis, "warning")


def test_a_limit_of_16_tokens_is_caught() -> None:
    warnings = words(diagnose("rollout.max_completion_length=16"), "warning")
    assert "16 tokens leave no room to reason" in warnings
    assert "were cut off at rollout.max_completion_length 16" in warnings


def test_the_command_exits_with_2_and_prints_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(command, ["demo", *SMALL, DEMANDS_THINK, "--json"])
    assert result.exit_code == 2
    found = json.loads(result.output)
    assert found["refused"] and found["rollouts"][0]["terms"] == {"doctor.flawed_rewards:opens_and_closes": 0.0}


def test_training_rows_that_repeat_a_held_out_question_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [{"problem": f"What is 1 + {number // 2}?", "answer": str(1 + number // 2)} for number in range(40)]
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    diagnosis = diagnose(f"data.path={path}")
    assert "held-out questions under another id and are left out" in words(diagnosis, "warning")


PROMPTS = Prompts(
    first="<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n",
    first_tokens=tuple(range(20)),
    num_training=100,
    num_held_out=10,
    num_over_limit=0,
    num_overlapping=0,
    stop_tokens={1: "<|im_end|>", 2: "<|endoftext|>"},
    pad_token="<|endoftext|>",
    context_length=1024,
)
CASES = {
    "doubled braces": ([r"prompt.system=Write \boxed{{}}"], {}, "warning", "doubled braces `{{}}`"),
    "system prompt": (["prompt.system=Think."], {}, "warning", "benchmarks are asked without a system prompt"),
    "opened reasoning": ([], {}, "note", "already opens `<think>`"),
    "tag that can't be earned": (["reward.terms=[{name: tag_count}]"], {}, "warning", "reward.terms.0: `tag_count`"),
    "all stop tokens": ([], {}, "fine", "'<|im_end|>' (1), '<|endoftext|>' (2)"),
    "no stop token": ([], {"stop_tokens": {}}, "refused", "name no stop token"),
    "few long prompts": ([], {"num_over_limit": 5}, "note", "5 of 115 prompts are over"),
    "many long prompts": ([], {"num_over_limit": 90}, "warning", "90 of 200 prompts are over"),
    "context too short": (["rollout.max_completion_length=2000"], {}, "warning", "completions end after 1004"),
    "overlap": ([], {"num_overlapping": 3}, "warning", "3 training rows repeat one of the 10 held-out questions"),
}


@pytest.mark.parametrize(("overrides", "changes", "level", "text"), CASES.values(), ids=CASES)
def test_prompts_are_read(overrides: list[str], changes: dict, level: str, text: str) -> None:
    from dataclasses import replace

    findings = check_prompts(load_recipe("demo", overrides), replace(PROMPTS, **changes))
    assert any(finding.level == level and text in finding.text for finding in findings), findings


@pytest.mark.parametrize("name", ["open-rs1-released", "open-rs2-released", "open-rs3-released"])
def test_the_releases_braces_are_seen(name: str) -> None:
    assert any(finding.topic == "braces" for finding in check_prompts(load_recipe(name), PROMPTS))
