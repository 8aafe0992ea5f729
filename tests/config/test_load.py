"""Recipes load by name or path, extend one another once, and blame the right key in the user's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_rs.config.load import load_recipe, resolved_yaml, shipped_names
from open_rs.config.schema import Recipe
from open_rs.types import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_names())
def test_resolved_recipe_loads_again_to_an_equal_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert load_recipe(write(tmp_path / "again.yaml", resolved_yaml(recipe))) == recipe


def test_open_rs3_is_table_5() -> None:
    recipe = load_recipe("open-rs3")
    assert (recipe.train.prompts_per_step, recipe.rollout.num_generations, recipe.train.max_steps) == (12, 6, 500)
    assert (recipe.rollout.temperature, recipe.rollout.max_completion_length) == (0.7, 3584)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.min_lr_rate, recipe.optimizer.warmup_ratio) == (
        1e-6,
        0.1,
        0.1,
    )
    assert [(term.name, term.weight) for term in recipe.reward.terms] == [("format", 1.0), ("cosine", 2.0)]


def test_parent_values_stay_and_lists_are_replaced(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.yaml", "extends: open-rs3\nrollout: {temperature: 0.9}\nreward: {terms: [{name: accuracy}]}"
    )
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert (recipe.rollout.temperature, recipe.rollout.num_generations) == (0.9, 6)
    assert [term.name for term in recipe.reward.terms] == ["accuracy"]


def test_a_reason_does_not_outlive_the_value_it_explains(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "extends: open-rs3\nrollout: {temperature: 0.9}")
    assert "rollout.temperature" not in load_recipe(path).because
    assert "rollout.num_generations" in load_recipe(path).because


def test_extends_finds_a_file_beside_the_recipe(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "train: {max_steps: 7}")
    assert load_recipe(write(tmp_path / "mine.yaml", "extends: base.yaml")).train.max_steps == 7


def test_overrides_are_yaml_and_reach_into_lists() -> None:
    overrides = [
        "reward.terms.0.weight=0.5",
        "optimizer.learning_rate=3e-5",
        "model.lora={rank: 4}",
        "data.path=a=b.jsonl",
    ]
    recipe = load_recipe("demo", overrides)
    assert recipe.reward.terms[0].weight == 0.5
    assert recipe.optimizer.learning_rate == 3e-5
    assert recipe.model.lora is not None and recipe.model.lora.rank == 4
    assert recipe.data.path == "a=b.jsonl"
    assert recipe.because["optimizer.learning_rate"] == "set on the command line"


def test_steps_given_on_the_command_line_are_not_stretched_by_a_budget() -> None:
    assert load_recipe("demo", ["budget.hours=1"]).budget.stretch
    assert not load_recipe("demo", ["budget.hours=1", "train.max_steps=3"]).budget.stretch


def test_a_data_set_given_on_the_command_line_replaces_the_recipes_own() -> None:
    assert load_recipe("open-rs3", ["data.path=x.jsonl"]).data.name is None
    assert load_recipe("open-rs3", ["data.path=x.jsonl", "data.name=mine"]).data.name == "mine"


def test_a_key_may_be_repeated_with_the_same_value(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path / "twice.yaml", "train: {seed: 1, seed: 1}")).train.seed == 1


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "empty.yaml", ""))
    assert recipe.model_copy(update={"name": "unnamed"}) == Recipe()


FAULTS = {
    "nearest key in the section": (
        "rollout.num_generation=3",
        ["`rollout.num_generation`", "`rollout.num_generations`"],
    ),
    "right key in the wrong section": ("train.num_generations=3", ["did you mean `rollout.num_generations`"]),
    "unknown section": ("rolout.top_p=1", ["`rolout`", "`rollout`", "optimizer"]),
    "out of range": ("rollout.temperature=-1", ["rollout.temperature", "greater than or equal to 0", "-1"]),
    "not a number": ("optimizer.learning_rate=fast", ["optimizer.learning_rate", "number", "'fast'"]),
    "union": ("model.lora.target_modules=3", ["model.lora.target_modules", "all-linear"]),
    "inside a term": ("reward.terms=[{nam: format}]", ["reward.terms.0.nam", "`name`"]),
    "index past the end": ("reward.terms.5.weight=1", ["reward.terms.5.weight", "use 0 to 1"]),
    "section replaced by a value": ("data=3", ["data:", "section"]),
    "negative price": ("budget.gpu_hour_usd=-1", ["budget.gpu_hour_usd", "greater than 0"]),
    "dollars without a price": ("budget.usd=5", ["budget.usd", "budget.gpu_hour_usd"]),
    "no value": ("train", ["section.key=value"]),
    "broken yaml": ("train.max_steps=[1", ["train.max_steps", "YAML"]),
    "fewest over most": ("data.arithmetic.min_operands=9", ["data.arithmetic.min_operands: 9", "max_operands: 4"]),
    "path through a value": ("train.max_steps.x=1", ["train.max_steps"]),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_faults_name_the_key_and_the_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("demo", [text])
    assert all(word in str(caught.value) for word in words), str(caught.value)


FILES = {
    "extends itself": ("extends: mine.yaml", ["mine.yaml", "extends itself"]),
    "unknown parent": ("extends: open-rs4", ["open-rs4", "open-rs3"]),
    "two parents": ("extends: [demo, open-rs3]", ["extends: one recipe"]),
    "list": ("- a", ["mapping"]),
    "repeated key": ("train: {max_steps: 1, max_steps: 2}", ["`max_steps` is given twice"]),
    "syntax": ("train: {", ["YAML"]),
    "generated and read": ("data: {name: arithmetic, path: x.jsonl}", ["data.name", "data.path"]),
    "answer longer than the server": (
        "rollout: {engine: vllm, vllm: {max_model_len: 600}}",
        ["rollout.vllm.max_model_len: 600", "prompt.max_prompt_length", "rollout.max_completion_length"],
    ),
    "two faults": ("train: {max_steps: 0, seed: -1}", ["train.max_steps", "train.seed"]),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_bad_files_are_refused(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path / "mine.yaml", text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_circle_of_recipes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml")
    with pytest.raises(UserError, match="extends itself"):
        load_recipe(write(tmp_path / "b.yaml", "extends: a.yaml"))


@pytest.mark.parametrize(("name", "word"), [("open-rs33", "`open-rs3`"), ("./gone.yaml", "no such recipe file")])
def test_a_missing_recipe_says_what_there_is(name: str, word: str) -> None:
    with pytest.raises(UserError, match="demo") as caught:
        load_recipe(name)
    assert word in str(caught.value)
