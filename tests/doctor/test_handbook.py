"""`docs/recipes.md` is what the tables say, and the commands around recipes say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from config.flat_recipes import RELEASE
from open_rs.cli import recipes, translate
from open_rs.config.keys.table import known_keys
from open_rs.config.load import load_recipe, shipped_names
from open_rs.doctor.handbook import PLANS, handbook
from open_rs.train.memory import R1_DISTILL_QWEN_1_5B, Shape
from open_rs.types import UserError

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == handbook(), "run: open-rs recipes --markdown > docs/recipes.md"


def test_the_page_names_every_recipe_and_every_known_key() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in [*shipped_names(), *known_keys()])


def test_every_card_of_the_plans_suffices() -> None:
    text = handbook()
    assert text.count(": fits.") == len(PLANS)
    assert Shape.of(R1_DISTILL_QWEN_1_5B).parameters == 1_777_088_000


def test_recipes_lists_and_shows() -> None:
    listed = json.loads(CliRunner().invoke(recipes.command, ["--json"]).output)
    assert [row["name"] for row in listed] == shipped_names()
    shown = yaml.safe_load(CliRunner().invoke(recipes.command, ["open-rs3"]).output)
    assert shown["train"]["prompts_per_step"] == 12 and shown["because"]


def test_translate_writes_a_recipe_that_loads(tmp_path: Path) -> None:
    flat, out = tmp_path / "grpo.yaml", tmp_path / "recipe.yaml"
    flat.write_text(yaml.safe_dump(RELEASE))
    result = CliRunner().invoke(translate.command, [str(flat), "--num-processes", "6", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert load_recipe(out).train.prompts_per_step == 24
    assert "push_to_hub" in result.stderr
    with pytest.raises(UserError, match="exists already"):
        CliRunner().invoke(translate.command, [str(flat), "--out", str(out)], catch_exceptions=False)


def test_translate_prints_json(tmp_path: Path) -> None:
    flat = tmp_path / "grpo.yaml"
    flat.write_text(yaml.safe_dump(RELEASE))
    printed = json.loads(CliRunner().invoke(translate.command, [str(flat), "--json"]).stdout)
    assert (printed["written_for"], printed["num_processes"]) == ("TRL 0.16.0 (open-rs)", 3)
    assert printed["recipe"]["algorithm"]["loss_type"] == "release"


def test_a_recipe_with_sections_is_not_translated(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo")
    with pytest.raises(UserError, match="nothing to translate"):
        CliRunner().invoke(translate.command, [str(path)], catch_exceptions=False)
