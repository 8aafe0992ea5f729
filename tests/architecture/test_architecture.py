"""The house keeps its walls; a planted hole is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from doors import read_imports, violations

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "open_rs"

PLANTED = {
    "upward import": ("types.py", "from open_rs.train import loop\n", "stands above"),
    "upward import inside a function": ("stats.py", "def f():\n    import open_rs.models\n", "stands above"),
    "relative upward import": ("grading/planted.py", "from ..rollout import engine\n", "stands above"),
    "cycle": ("prompts.py", "import open_rs.rollout.engine\n", "stands above"),
    "cycle inside a room": ("data/planted.py", "import open_rs.data.planted_too\n", "cycle: "),
    "second import of math-verify": ("rewards.py", "import math_verify\n", "imports math_verify"),
    "evaluation that reads rewards": ("evaluate/planted.py", "from open_rs.rewards import score\n", "must not know"),
    "torch in a room without torch": ("run_dir.py", "import torch\n", "imports torch"),
    "report read by a room": ("doctor.py", "from open_rs.report import page\n", "only api and cli may"),
}


def test_the_house_keeps_its_walls() -> None:
    assert violations(read_imports(PACKAGE)) == []


@pytest.mark.parametrize(("name", "code", "words"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_hole_is_found(tmp_path: Path, name: str, code: str, words: str) -> None:
    copy = tmp_path / "open_rs"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "open-rs-tiny"))
    target = copy / name
    target.write_text((target.read_text() if target.exists() else "") + code)
    (copy / "data" / "planted_too.py").write_text("import open_rs.data.planted\n")
    found = violations(read_imports(copy))
    assert any(words in sentence for sentence in found), found
