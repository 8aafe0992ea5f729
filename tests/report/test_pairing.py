"""The report shows what asking both sides the same problems is worth."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluate.results import evaluation, planted
from open_rs.report.page import write_report
from open_rs.report.pairing import CURVE, SWEEP, describe_pairing
from open_rs.run_dir import RunDir

HARD_TO_EASY = np.linspace(0.02, 0.98, 120)
ASKED = {"name": "recipe demo", "temperature": 1.0}
TITLE = "Why both sides answer the same problems"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunDir:
    """A finished run whose checkpoints have not been evaluated yet."""
    shutil.copytree(finished_run, tmp_path / "run")
    return RunDir.open(tmp_path / "run")


def add_checkpoint(run: RunDir, step: int, gain: float, temperature: float = 1.0) -> None:
    """The result of one checkpoint on 120 problems from hard to easy, 8 samples each."""
    held_out = planted("held_out", np.clip(HARD_TO_EASY + gain, 0, 1), seed=step)
    found = evaluation("open-rs-tiny", held_out, protocol={**ASKED, "temperature": temperature})
    found.save(run.path / SWEEP / f"step-{step:06d}")


def page(run: RunDir) -> str:
    return write_report([run.path], run.path / "report.html").read_text()


def test_neighbouring_checkpoints_show_an_interval_that_pairing_makes_narrower(run: RunDir) -> None:
    for step, gain in ((20, 0.0), (40, 0.02), (60, 0.03)):
        add_checkpoint(run, step, gain)
    found = describe_pairing(run)
    assert found is not None
    labels = [row["label"] for row in found["rows"]]
    assert labels[:2] == ["step 40 → step 60, held-out problems", "step 20 → step 40, held-out problems"]
    assert all(float(row["narrower"].split()[0]) >= 1.3 for row in found["rows"][:2])
    html = page(run)
    assert TITLE in html
    assert f"<b>{found['drawings'][0]['caption']}</b>" in html
    drawn = re.findall(r"(unpaired|paired): ([\d.]+) points wide", html)
    widths = {side: float(width) for side, width in drawn[:2]}
    assert widths["unpaired"] > 1.3 * widths["paired"]


def test_a_run_by_itself_shows_base_and_trained_and_how_to_add_the_checkpoints(run: RunDir) -> None:
    html = page(run)
    assert "before → after training, held-out problems" in html
    assert "open-rs evaluate RUN --checkpoints all" in html


def test_checkpoints_asked_differently_are_named_and_not_compared(run: RunDir) -> None:
    add_checkpoint(run, 20, 0.0)
    add_checkpoint(run, 40, 0.0, temperature=0.6)
    html = page(run)
    assert "Not compared: step 20 → step 40" in html
    assert "asked differently" in html


def test_a_run_by_itself_pairs_neighbouring_points_of_its_curve(run: RunDir) -> None:
    steps = [int(place.name.removeprefix("step-")) for place in sorted((run.path / CURVE).iterdir())]
    assert len(steps) >= 2
    assert f"step {steps[-2]} → step {steps[-1]}, held-out problems" in page(run)


def test_pairing_is_not_praised_where_it_changes_little(run: RunDir) -> None:
    shutil.rmtree(run.path / CURVE)
    for when, chance in (("base", 0.1), ("trained", 0.9)):
        evaluation("m", planted("held_out", np.full(200, chance), seed=1), protocol=ASKED).save(
            run.path / "results" / when
        )
    found = describe_pairing(run)
    assert found is not None
    assert "Here little is shared" in found["sentence"]
    assert not found["drawings"][0]["matters"]


def test_a_run_without_two_evaluations_has_no_such_section(run: RunDir) -> None:
    shutil.rmtree(run.path / "results")
    assert describe_pairing(run) is None
    assert TITLE not in page(run)
