"""Whatever a person gets wrong ends in one sentence, exit code 2, no traceback, and nothing that was there is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from open_rs.cli import COMMANDS, main


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The command in this process: its exit code, and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", ["open-rs", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


BAD = {
    "unknown command": (["trian"], "did you mean `train`"),
    "unknown option": (["train", "demo", "--outt", "x"], "--out"),
    "no recipe": (["train"], "give a recipe"),
    "recipe and resume": (["train", "demo", "--resume", "x"], "give a recipe, or --resume"),
    "unknown recipe": (["train", "open-rs33"], "open-rs3"),
    "missing recipe file": (["train", "./nowhere.yaml"], "no such recipe file"),
    "unknown section": (["train", "demo", "trian.max_steps=3"], "train"),
    "unknown key": (["train", "demo", "train.max_step=3"], "max_steps"),
    "value of another type": (["train", "demo", "train.max_steps=many"], "train.max_steps"),
    "value out of range": (["train", "demo", "rollout.num_generations=1"], "rollout.num_generations"),
    "an override without a value": (["train", "demo", "train.max_steps"], "section.key=value"),
    "unknown reward": (["train", "demo", "reward.terms=[{name: accurcy}]"], "accuracy"),
    "a reward that needs a sandbox": (["train", "demo", "reward.terms=[{name: code}]"], "sandbox"),
    "a reward that can't be imported": (["train", "demo", "reward.terms=[{name: 'nowhere:f'}]"], "nowhere:f"),
    "unknown schedule": (["train", "demo", "optimizer.lr_scheduler_type=cosin"], "cosine"),
    "unknown model": (["train", "demo", "model.name_or_path=./nowhere"], "no such directory"),
    "missing data": (["train", "demo", "data.name=null", "data.path=nowhere.jsonl"], "no such file"),
    "no data": (["train", "demo", "data.name=null"], "names no problems"),
    "a benchmark as training data": (["train", "demo", "data.name=aime24"], "held out"),
    "greedy training": (["train", "demo", "rollout.temperature=0"], "rollout.temperature"),
    "more prompts than problems": (
        ["train", "demo", "data.arithmetic.num_problems=8", "train.prompts_per_step=16"],
        "train.prompts_per_step",
    ),
    "no run to resume": (["train", "--resume", "nowhere"], "no run here"),
    "no run to report": (["report", "nowhere"], "no run here"),
    "unknown benchmark": (["evaluate", "open-rs-tiny", "--benchmarks", "aime42"], "aime24"),
    "no samples": (["evaluate", "open-rs-tiny", "--benchmarks", "arithmetic", "--samples", "0"], "--samples"),
    "no such folder of benchmarks": (["evaluate", "open-rs-tiny", "--benchmarks", "aime24", "--data", "no"], "no"),
}


@pytest.mark.parametrize(("words", "expected"), BAD.values(), ids=BAD.keys())
def test_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = run(monkeypatch, capsys, *words)
    assert code == 2
    assert expected in error
    assert "Traceback" not in error


def test_a_run_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("keep me")
    code, error = run(monkeypatch, capsys, "train", "demo", "--out", str(tmp_path))
    assert (code, (tmp_path / "precious").read_text()) == (2, "keep me")
    assert "already holds files" in error


ROWS = {
    "no question column": ([{"q": "1+1", "answer": "2"}], "no column"),
    "no answer column": ([{"problem": "1+1", "a": "2"}], "no column"),
    "only empty answers": ([{"problem": "1+1", "answer": ""}], "no usable problem"),
    "a row that is no object": (["1+1"], "must be an object"),
}


@pytest.mark.parametrize(("rows", "expected"), ROWS.values(), ids=ROWS.keys())
def test_a_data_set_that_can_not_be_used_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    rows: list,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, error = run(monkeypatch, capsys, "train", "demo", "data.name=null", "data.path=data.jsonl")
    assert code == 2
    assert expected in error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["open-rs", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert not ended.value.code
    assert f"open-rs {name}" in shown.split("Usage:")[1].split("\n", 1)[1]


def test_help_imports_no_torch() -> None:
    code = "import sys; sys.argv=['open-rs', '--help']\nfrom open_rs.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'pydantic', 'rich', 'numpy') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.rstrip().endswith("[]")
