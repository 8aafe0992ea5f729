"""A curation recipe is refused in words that name the key and the nearest known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_rs.config.curation import load_curation
from open_rs.types import UserError

BASE = "sources: [{name: deepscaler}]\n"
FAULTS = {
    "an unknown key": (BASE + "stags: []", "did you mean `stages`"),
    "an unknown stage": (BASE + "stages: [{stage: dedup}]", "one of extract, audit, rules, deduplicate"),
    "a stage without a name": (BASE + "stages: [{near: true}]", "a stage is named by `stage:`"),
    "an unknown key of a stage": (BASE + "stages: [{stage: deduplicate, treshold: 1}]", "did you mean `threshold`"),
    "a value out of range": (BASE + "stages: [{stage: deduplicate, threshold: 2}]", "stages.0.threshold"),
    "a band that is empty": (BASE + "stages: [{stage: pass_rate, above: 0.9, below: 0.1}]", "no rate lies between"),
    "more samples than the most": (
        BASE + "stages: [{stage: pass_rate, min_samples: 9, max_samples: 2}]", "exceeds max_samples"
    ),
    "a source with two places": ("sources: [{name: a, path: b}]", "exactly one of name, path and recipe"),
    "no source": ("stages: []", "sources"),
    "a recipe that extends itself": ("extends: mine.yaml\n" + BASE, "extends itself"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_told_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_curation(tmp_path / "mine.yaml")


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean `open-s1`"):
        load_curation("open-s2")


def test_a_recipe_extends_a_shipped_one_and_takes_overrides(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: open-deepscaler\nheld_out: {rows: 5}\n")
    recipe = load_curation(tmp_path / "mine.yaml", ["sources.0.limit=300"])
    assert (recipe.name, recipe.held_out.rows, recipe.sources[0].limit) == ("mine", 5, 300)
    assert recipe.stages == load_curation("open-deepscaler").stages
