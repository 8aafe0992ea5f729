"""What a person takes away: Markdown, LaTeX, a model card's block and figures hold the numbers that were measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import model_index_to_eval_results

from evaluate.results import evaluation, planted
from open_rs.evaluate import tables
from open_rs.evaluate.result import BenchmarkResult, Evaluation, Sample
from open_rs.evaluate.rows import Cell, Row, row_of
from open_rs.stats import Interval

ROWS = [
    Row("my_model & co", {"aime24": Cell(0.3, Interval(0.2, 0.4125)), "exam_1": Cell(0.5)}, Cell(0.4)),
    Row("theirs", {"aime24": Cell(0.297, spread=0.046)}),
]
EXAM = evaluation(
    "me/mine",
    planted("aime24", np.linspace(0.1, 0.9, 30)),
    planted("exam", np.full(50, 0.5), seed=3),
    protocol={"name": "open-rs", "temperature": 0.6, "top_p": 0.95, "max_tokens": 32768},
)


def test_markdown_holds_score_and_interval_in_one_cell() -> None:
    assert tables.markdown(ROWS) == (
        "| model | AIME24 | exam 1 | avg |\n|---|---|---|---|\n"
        "| my_model & co | 30.0 (20.0-41.2) | 50.0 | 40.0 |\n| theirs | 29.7 ± 4.6 | - | - |\n"
    )


def test_latex_is_a_booktabs_table_whose_names_are_escaped() -> None:
    assert tables.latex(ROWS).splitlines() == [
        "\\begin{tabular}{lrrr}",
        "\\toprule",
        "Model & AIME24 & exam 1 & avg \\\\",
        "\\midrule",
        "my\\_model \\& co & 30.0 {\\scriptsize [20.0, 41.2]} & 50.0 & 40.0 \\\\",
        "theirs & 29.7 $\\pm$ 4.6 & -- & -- \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]


def test_the_hub_reads_the_model_index_block(tmp_path: Path) -> None:
    from open_rs.evaluate.export import export  # matplotlib is absent where only the engines are tested

    export(EXAM, tmp_path)
    block = yaml.safe_load((tmp_path / "model-index.yaml").read_text())
    name, found = model_index_to_eval_results(block["model-index"])
    assert name == "mine"
    assert [(result.dataset_name, result.metric_type) for result in found] == [("AIME24", "avg@8"), ("exam", "avg@8")]
    assert isinstance(found[0], EvalResult)
    assert found[0].dataset_type == "HuggingFaceH4/aime_2024"
    assert found[0].metric_value == pytest.approx(100 * EXAM.benchmarks["aime24"].avg, abs=0.005)
    assert (found[0].metric_args or {})["temperature"] == 0.6


def test_the_page_says_how_it_was_asked_and_figures_are_the_same_twice(tmp_path: Path) -> None:
    from open_rs.evaluate.export import export

    first, again = export(EXAM, tmp_path / "a"), export(EXAM, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert "Protocol open-rs: temperature 0.6, top_p 0.95, 32,768 tokens" in (tmp_path / "a/results.md").read_text()
    figures = {path.name for path in first if path.suffix == ".svg"}
    assert figures == {"accuracy.svg", "pass_at_k.svg", "lengths.svg"}
    assert all(ElementTree.parse(path).getroot().tag.endswith("svg") for path in first if path.suffix == ".svg")


def test_no_figure_of_lengths_where_nobody_counted_tokens(tmp_path: Path) -> None:
    from open_rs.evaluate.plots import draw

    uncounted = BenchmarkResult("exam", ("exam:0",), ((Sample(True),),))
    assert "lengths.svg" not in {path.name for path in draw([Evaluation("m", {"exam": uncounted})], tmp_path)}


def test_checkpoints_are_drawn_with_the_band_that_luck_fills(tmp_path: Path) -> None:
    from open_rs.evaluate.plots import draw_checkpoints

    rows = [row_of(evaluation(f"step {i}", planted("exam", np.full(30, 0.3), 1, seed=i)), f"{i}") for i in range(5)]
    draw_checkpoints(rows, "exam", tmp_path / "checkpoints.svg")
    assert ElementTree.parse(tmp_path / "checkpoints.svg").getroot().tag.endswith("svg")


def test_one_is_counted_as_one() -> None:
    assert (tables.counted(1, "gold"), tables.counted(1200, "gold")) == ("1 gold", "1,200 golds")
