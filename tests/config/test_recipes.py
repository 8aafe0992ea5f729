"""The shipped recipes are complete, and every deviation carries its reason."""

from __future__ import annotations

from typing import Any

import pytest

from open_rs.config.load import SHIPPED, find_recipe, load_recipe, read_tree, read_yaml, shipped_names
from open_rs.config.schema import Recipe

EXPECTED = {
    "demo", "open-rs1", "open-rs2", "open-rs3", "open-rs1-released", "open-rs2-released", "open-rs3-released",
    "open-rs-10usd", "tina-lora", "deepscaler",
}  # fmt: skip
SILENT = {"name", "about", "extends", "because"}


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        key: leaf for name, part in value.items() for key, leaf in leaves(part, f"{prefix}.{name}".strip(".")).items()
    }


def test_all_recipes_ship() -> None:
    assert set(shipped_names()) == EXPECTED


@pytest.mark.parametrize("name", shipped_names())
def test_every_deviation_carries_its_reason(name: str) -> None:
    stated = read_yaml(find_recipe(name))
    parent = (
        read_tree(SHIPPED / f"{stated['extends']}.yaml") if "extends" in stated else Recipe().model_dump(mode="json")
    )
    before = leaves(parent) | {}
    reasons = stated["because"]
    for key, value in leaves({part: stated[part] for part in stated if part not in SILENT}).items():
        explained = any(key == reason or key.startswith(f"{reason}.") for reason in reasons)
        assert explained or before.get(key, leaves(Recipe().model_dump()).get(key)) == value, (
            f"{name}: {key} = {value!r}"
        )


@pytest.mark.parametrize("name", shipped_names())
def test_reasons_name_keys_that_the_recipe_states(name: str) -> None:
    stated = read_yaml(find_recipe(name))
    keys = leaves({part: stated[part] for part in stated if part not in SILENT})
    for reason in stated["because"]:
        assert any(key == reason or key.startswith(f"{reason}.") for key in keys), f"{name}: {reason}"


@pytest.mark.parametrize("name", sorted(EXPECTED - {"demo"}))
def test_prompt_and_answer_fit_the_server_that_vllm_starts(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.rollout.vllm.max_model_len is not None
    needed = recipe.prompt.max_prompt_length + recipe.rollout.max_completion_length
    assert needed <= recipe.rollout.vllm.max_model_len


@pytest.mark.parametrize("name", ["open-rs1-released", "open-rs2-released", "open-rs3-released"])
def test_released_recipes_keep_the_releases_flaws(name: str) -> None:
    recipe = load_recipe(name)
    assert "{{}}" in (recipe.prompt.system or "")
    assert (recipe.algorithm.loss_type, recipe.algorithm.beta) == ("release", 0.04)
    for term in recipe.reward.terms:
        if term.name == "cosine":
            assert (term.params["length_unit"], term.params["clamp"]) == ("characters", False)


@pytest.mark.parametrize("name", ["open-rs1", "open-rs2", "open-rs3"])
def test_papers_recipes_send_single_braces(name: str) -> None:
    assert r"\boxed{}" in (load_recipe(name).prompt.system or "")
