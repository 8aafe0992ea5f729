"""A curation keeps and drops every row once, caches by content, refuses benchmarks, and writes a set that loads."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from open_rs.config.curation import CurationRecipe, curation_names, load_curation
from open_rs.config.schema import DataConfig, ModelConfig, PromptConfig, RolloutConfig
from open_rs.data.curate import Curated, curate
from open_rs.data.inspect import difference, read_set, verify_set
from open_rs.data.pass_rate import Sampler
from open_rs.data.plan import plan
from open_rs.data.publish import write_set
from open_rs.data.sources import load_problems
from open_rs.prompts import Prompt, build_messages
from open_rs.rollout.engine import Sampling
from open_rs.rollout.scripted import ScriptedEngine
from open_rs.types import Problem, UserError

WORDS = ["apple", "river", "copper", "window", "candle", "marble", "garden", "bridge", "silver", "thunder"]
EXAM = "A ladder of 13 metres leans on a wall, its foot 5 metres away. How high, in metres, does it reach?"


@dataclass(frozen=True)
class Lab:
    """A folder with a pool, its benchmark and a cache."""

    path: Path

    def write(self, name: str, rows: list[dict]) -> Path:
        file = self.path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def recipe(self, *stages: dict, **settings: object) -> CurationRecipe:
        source = {"path": str(self.path / "pool.jsonl")}
        base = {"name": "small", "sources": [source], "benchmarks": ["aime24"], "directories": [str(self.path)]}
        return CurationRecipe.model_validate({**base, "stages": list(stages), **settings})

    def run(self, recipe: CurationRecipe, script: object = None) -> Curated:
        return curate(recipe, self.path / "cache", sampler=scripted(script))


def scripted(script: object):
    def build(model: ModelConfig, rollout: RolloutConfig, prompt: PromptConfig, seed: int) -> Sampler:
        def render(problem: Problem) -> Prompt:
            return Prompt(problem.id, build_messages(problem, None, "{question}"), problem.question, (1,))

        return Sampler(ScriptedEngine(script), render, Sampling(max_tokens=64), f"scripted-{model.name_or_path}")  # pyright: ignore

    return build


def sum_of(number: int) -> dict:
    word = WORDS[number % len(WORDS)]
    question = f"There are {number} {word}s on the left and {number + 3} on the right. How many {word}s are there?"
    return {"id": f"s{number}", "problem": question, "answer": str(2 * number + 3), "level": "5", "solution": "add"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    rows = [sum_of(number) for number in range(20)]
    rows += [
        {**sum_of(3), "id": "again"},
        {**sum_of(4), "id": "other", "answer": "99"},
        {"id": "none", "problem": "What?"},
    ]
    rows += [{"id": "leak", "problem": f"Solve it. {EXAM}", "answer": "12"}]
    rows += [{"id": "proof", "problem": "Prove that the sum of two even numbers is even.", "answer": "proof"}]
    made.write("pool.jsonl", rows)
    made.write("aime24.jsonl", [{"id": 1, "problem": EXAM, "answer": "12"}])
    return made


STAGES = (
    {"stage": "deduplicate"},
    {"stage": "rules", "rules": ["proof", {"name": "too_long", "params": {"max_question": 300}}]},
    {"stage": "audit"},
    {"stage": "decontaminate"},
)


def test_every_row_is_kept_or_dropped_once_with_its_reason(lab: Lab) -> None:
    curated = lab.run(lab.recipe(*STAGES))
    assert [(step.name, step.rows_in, step.kept) for step in curated.steps] == [
        ("pool/load", 25, 24), ("deduplicate", 24, 21), ("rules", 21, 20), ("audit", 20, 20), ("decontaminate", 20, 19),
    ]  # fmt: skip
    assert {reason for step in curated.steps for reason in step.reasons} == {
        "no answer in `answer`", "repeat", "repeats disagree about the answer", "asks for a proof", "repeats aime24",
    }  # fmt: skip
    assert curated.steps[1].notes["groups_with_differing_answers"] == 1


def test_a_second_run_reads_the_cache_and_a_changed_source_or_stage_does_not(lab: Lab) -> None:
    recipe = lab.recipe(*STAGES)
    lab.run(recipe)
    assert all(step.cached for step in lab.run(recipe).steps)
    later = lab.run(lab.recipe(STAGES[0], {"stage": "sample", "rows": 5})).steps
    assert [step.cached for step in later] == [True, True, False]
    told: list[str] = []
    lab.write("pool.jsonl", [sum_of(number) for number in range(10)])
    changed = curate(recipe, lab.path / "cache", say=told.append)
    assert not any(step.cached for step in changed.steps)
    assert "changed since it was last read" in told[0]


def test_the_written_set_loads_and_says_where_everything_went(lab: Lab) -> None:
    import datasets

    curated = lab.run(lab.recipe(*STAGES, held_out={"rows": 4}))
    written = write_set(curated, lab.path / "set")
    assert (written.rows, written.held_out_rows, written.overlaps) == (15, 4, 0)
    table = datasets.load_dataset(str(written.directory), cache_dir=str(lab.path / "hf"))
    assert {name: part.num_rows for name, part in table.items()} == {"train": 15, "validation": 4}
    assert {"problem", "solution", "answer", "level", "source", "pass_rate", "num_samples", "id"} <= set(
        table["train"].column_names
    )
    assert len(load_problems(DataConfig(path=str(written.directory))).problems) == 15
    manifest = json.loads((written.directory / "manifest.json").read_text())
    assert manifest["overlap"]["checked_against"] == {"aime24": 1}
    with gzip.open(written.directory / "dropped.jsonl.gz", "rt") as file:
        dropped = [json.loads(line) for line in file]
    assert len(dropped) == 6
    leak = next(row for row in dropped if row["reason"] == "repeats aime24")
    assert leak["evidence"]["item_question"] == EXAM
    assert str(lab.path) not in (written.directory / "README.md").read_text()
    drawing = ElementTree.parse(written.directory / "funnel.svg")
    assert "19 of 20" in {text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    verify_set(written.directory)


def test_a_set_that_repeats_a_benchmark_is_not_written_unless_asked_for_and_not_trained_on(lab: Lab) -> None:
    with pytest.raises(UserError, match="1 rows repeat held-out problems"):
        write_set(lab.run(lab.recipe()), lab.path / "set")
    written = write_set(lab.run(lab.recipe(allow_contaminated=True)), lab.path / "set")
    assert written.overlaps == 1
    with pytest.raises(UserError, match="allow_contaminated"):
        load_problems(DataConfig(path=str(written.directory)))
    assert load_problems(DataConfig(path=str(written.directory), allow_contaminated=True)).problems
    with pytest.raises(UserError, match="not released"):
        verify_set(written.directory)


REFUSED = {
    "a benchmark by name": ({"sources": [{"name": "aime24"}]}, "held out"),
    "a benchmark by Hub id": ({"sources": [{"name": "HuggingFaceH4/MATH-500"}]}, "held out"),
    "a benchmark by file": ({"sources": [{"path": "somewhere/math500.jsonl"}]}, "held out"),
    "an unknown source": ({"sources": [{"name": "deepscalr"}]}, "did you mean `deepscaler`"),
    "no such file": ({"sources": [{"path": "nowhere.jsonl"}]}, "no such file"),
    "a training set as benchmark": ({"benchmarks": ["deepscaler"]}, "is a training set"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_be_curated_is_refused(lab: Lab, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        lab.run(lab.recipe(**settings))


def test_a_missing_column_names_those_that_are_there(lab: Lab) -> None:
    source = {"path": str(lab.path / "pool.jsonl"), "question_field": "qestion"}
    with pytest.raises(UserError, match="it has `id`, `problem`"):
        lab.run(lab.recipe(sources=[source]))


def test_damaged_bytes_and_huge_rows_are_rows_with_a_reason(lab: Lab) -> None:
    good = json.dumps(sum_of(1)).encode()
    bad = json.dumps({"id": "bad", "problem": "How many X?", "answer": "1"}).encode().replace(b"X", b"\xff\xfe")
    huge = json.dumps({"id": "huge", "problem": "a" * 10_000_000, "answer": "1"}).encode()
    (lab.path / "pool.jsonl").write_bytes(b"\n".join([good, bad, huge]))
    steps = lab.run(lab.recipe({"stage": "rules", "rules": ["encoding"]})).steps
    assert [dict(step.reasons) for step in steps] == [{"over 100,000 characters": 1}, {"damaged encoding": 1}]


def test_an_interrupted_stage_leaves_nothing_and_what_was_finished(lab: Lab) -> None:
    def lost(prompt: Prompt, sample: int) -> str:
        raise UserError("endpoint: stopped answering")

    recipe = lab.recipe(STAGES[0], {"stage": "pass_rate"})
    with pytest.raises(UserError, match="stopped answering"):
        lab.run(recipe, lost)
    names = [place.name for place in (lab.path / "cache" / "stages").iterdir()]
    assert len(names) == 2 and not any(name.startswith(".") for name in names)
    assert [step.cached for step in lab.run(recipe, lambda prompt, sample: "\\boxed{3}").steps] == [True, True, False]


def test_quota_sample_band_label_and_extract_do_what_they_say(lab: Lab) -> None:
    rows = [{"problem": f"Question {i}?", "solution": f"so \\boxed{{{i}}}", "answer": "", "n": i} for i in range(9)]
    lab.write("pool.jsonl", [*rows, {"problem": "Q?", "solution": "none", "answer": "", "n": 1}])
    source = {"path": str(lab.path / "pool.jsonl"), "answer_field": "solution", "columns": {"level": "n"}}
    stages = (
        {"stage": "extract"}, {"stage": "band", "field": "n", "above": 2},
        {"stage": "label", "field": "domain", "value": "sums"},
        {"stage": "quota", "by": "domain", "rows": {"sums": 5}}, {"stage": "sample", "rows": 3},
    )  # fmt: skip
    curated = lab.run(lab.recipe(*stages, sources=[source]))
    assert [step.kept for step in curated.steps] == [10, 9, 7, 7, 5, 3]
    assert all(
        problem.answer == str(problem.meta["n"]) and problem.meta["domain"] == "sums" for problem in curated.rows
    )


def test_pass_rates_and_judgements_decide_and_are_stored(lab: Lab) -> None:
    def script(prompt: Prompt, sample: int) -> str:
        number = int(prompt.text.split()[2])
        right = number < 6 or (number < 12 and sample % 2 == 0)
        return f"\\boxed{{{2 * number + 3 if right else -1}}}"

    lab.write("pool.jsonl", [sum_of(number) for number in range(18)])
    stage = {"stage": "pass_rate", "above": 0.2, "below": 0.8}
    curated = lab.run(lab.recipe(stage), script)
    step = curated.steps[-1]
    assert (step.kept, sorted(step.reasons.values())) == (6, [6, 6])
    assert step.notes["samples"] == 12 * 7 + 6 * 41
    assert step.notes["widest_half_width"] <= 0.15
    assert all(
        0.3 < problem.meta["pass_rate_lower"] < 0.5 < problem.meta["pass_rate_upper"] for problem in curated.rows
    )
    judged = lab.run(lab.recipe({"stage": "judge"}), lambda prompt, sample: "Yes." if "river" in prompt.text else "no")
    assert judged.steps[-1].reasons == {"the judge would not use it": 2}


def test_a_recipe_reads_another_and_circles_are_refused(lab: Lab) -> None:
    inner = lab.path / "inner.yaml"
    inner.write_text(f"sources: [{{path: {lab.path / 'pool.jsonl'}}}]\nstages: [{{stage: deduplicate}}]\n")
    outer = lab.recipe(
        sources=[
            {"recipe": str(inner), "stages": [{"stage": "sample", "rows": 4}]},
            {"path": str(lab.path / "pool.jsonl")},
        ]
    )
    curated = lab.run(outer)
    assert [step.name for step in curated.steps] == [
        "inner/pool/load",
        "inner/deduplicate",
        "inner/sample",
        "pool/load",
    ]
    ids = [problem.id for problem in curated.rows]
    assert len(ids) == len(set(ids)) == 28
    inner.write_text(f"sources: [{{recipe: {inner}}}]\n")
    with pytest.raises(UserError, match="circle"):
        lab.run(outer)


def test_a_difference_names_rows_and_changed_columns() -> None:
    first = [Problem("1", "One  apple?", "1", "a"), Problem("2", "Two?", "2", "a")]
    second = [Problem("9", "One apple?", "7", "b"), Problem("3", "Three?", "3", "b")]
    found = difference(first, second)
    assert ([p.id for p in found.only_first], [p.id for p in found.only_second]) == (["2"], ["3"])
    assert found.changed[0][2] == ("answer",)


@pytest.mark.parametrize("name", curation_names())
def test_a_shipped_recipe_is_valid_and_can_be_planned(name: str) -> None:
    costs = list(plan(load_curation(name)))
    assert sum(cost.samples or 0 for cost in costs) > 10_000


def test_the_plan_of_the_paper_s_set_counts_shared_samples_once() -> None:
    costs = [cost for cost in plan(load_curation("open-rs")) if cost.model == "Qwen/Qwen2.5-Math-7B-Instruct"]
    assert [cost.samples for cost in costs] == [40_315, 0]


def test_the_paper_s_recipe_can_be_rehearsed_with_another_model(lab: Lab) -> None:
    rows = [{**sum_of(number), "solution": f"\\boxed{{{2 * number + 3}}}"} for number in range(60)]
    lab.write("s1.jsonl", [{**row, "question": row["problem"], "cot_type": "math"} for row in rows[:40]])
    lab.write("deepscaler.jsonl", rows[20:])
    small = ["benchmarks=[aime24]", f"directories=[{lab.path}]", "rehearsal.limit=30", "rehearsal.model=stand-in"]

    def script(prompt: Prompt, sample: int) -> str:
        number = int(prompt.text.split()[2])
        return f"\\boxed{{{2 * number + 3 if number % 3 == 0 else 0}}}"

    recipe = load_curation("open-rs", [*small, "sources.0.stages.0.rows=9", "sources.1.stages.0.rows=8"])
    curated = lab.run(recipe, script)
    assert {step.rows_in for step in curated.steps if step.name.endswith("/load")} == {30}
    written = write_set(curated, lab.path / "set")
    manifest = json.loads((written.directory / "manifest.json").read_text())
    assert set(manifest["by_level"]) == {"Hard", "Easy"}
    assert {origin["name"] for origin in manifest["origins"]} == {"s1", "deepscaler", "deepscaler-easy"}
    assert "| paper |" in (written.directory / "README.md").read_text()
    assert {problem.meta["num_samples"] for problem in read_set(written.directory)} == {1}
    assert {cost.model for cost in plan(recipe)} == {"stand-in", None}
