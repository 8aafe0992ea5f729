"""The report holds the claim, reads without the network, and can't be broken by what a model wrote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from open_rs.data.card import funnel_drawing
from open_rs.data.curate import Step
from open_rs.report.card import model_card
from open_rs.report.live import duration
from open_rs.report.page import write_report
from open_rs.run_dir import RunDir

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def report(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([finished_run], tmp_path_factory.mktemp("report") / "report.html")


def test_the_claim_and_its_interval_stand_in_the_report(finished_run: Path, report: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    html = report.read_text()
    low, high = (100 * bound for bound in summary["difference"]["ci95"])
    assert f"95 % interval {low:+.1f} to {high:+.1f}" in html
    assert html.count("<svg") >= 8


def test_the_report_needs_no_other_file_and_no_network(report: Path) -> None:
    html = report.read_text()
    assert not re.findall(r"url\([^#)]", html)
    assert not re.findall(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=", html)


def test_no_two_elements_share_an_id(report: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', report.read_text())
    assert len(ids) == len(set(ids))


def test_what_a_model_wrote_can_not_break_out(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    run = RunDir.open(copy)
    rows = [
        row | {"text": "</script><script>alert(1)</script>\ud800", "gold": "<b>"}
        for row in run.read_rows("rollouts/step-000001.jsonl.gz")
    ]
    run.write_rows("rollouts/step-000001.jsonl.gz", rows)
    html = write_report([copy], tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in html


def test_a_run_without_held_out_problems_claims_nothing(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "results")
    summary = {
        k: v
        for k, v in json.loads((copy / "summary.json").read_text()).items()
        if k not in ("base", "trained", "difference", "sets")
    }
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "proves nothing yet" in write_report([copy], tmp_path / "report.html").read_text()
    assert "Not measured" in model_card(RunDir.open(copy), "me/model")


def test_several_runs_stand_in_one_report(finished_run: Path, tmp_path: Path) -> None:
    html = write_report([finished_run, finished_run], tmp_path / "both.html").read_text()
    assert html.count('<p class="claim">') == 2


@pytest.mark.parametrize("place", ["set", "set/train.jsonl", "set/data/train.parquet"])
def test_the_funnel_of_a_curated_set_is_drawn_wherever_in_the_set_the_recipe_points(
    finished_run: Path, tmp_path: Path, place: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    steps = [Step("mine/audit", 1234, 987, {"unsolvable": 247}, {}, 1.0, None, False, tmp_path)]
    RunDir(tmp_path / "set").write_text("funnel.svg", funnel_drawing(steps))
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["data"] |= {"name": None, "path": str(tmp_path / place)}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    html = write_report([copy], tmp_path / "report.html").read_text()
    assert "Where its problems came from" in html
    assert "987 of 1,234" in html


def test_a_generated_task_has_no_funnel(report: Path) -> None:
    assert "Where its problems came from" not in report.read_text()


@pytest.mark.parametrize(("seconds", "words"), [(9, "9 s"), (65, "1 min 05 s"), (3725, "1 h 02 min"), (-1, "0 s")])
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.browser
def test_a_real_browser_shows_a_completion_and_draws_the_page(report: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install it to look at the report as a person would")
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    flags.append(f"--user-data-dir={tmp_path / 'profile'}")
    page = report.as_uri()
    shown = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120, check=True
    )
    reader = shown.stdout.split('data-reader="0"')[1].split("</section>")[0]
    assert re.search(r'<span class="tag (right|wrong)">', reader)
    assert "<pre>" in reader
    picture = tmp_path / "report.png"
    subprocess.run(
        [CHROMIUM, *flags, f"--screenshot={picture}", "--window-size=390,844", page],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert picture.stat().st_size > 10_000
