"""Recipes written for other trainers mean here what they meant there, and every key gets its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.flat_recipes import OPEN_R1, RELEASE, TABLE_5, TRL_NOW
from open_rs.config.keys.table import known_keys, parse_version
from open_rs.config.load import load, load_recipe
from open_rs.config.schema import Recipe
from open_rs.config.translate import translate
from open_rs.types import UserError


def loaded(path: Path, flat: dict[str, Any], *overrides: str, **told: Any) -> Recipe:
    file = path / "grpo.yaml"
    file.write_text(yaml.safe_dump(flat), encoding="utf-8")
    return load(file, overrides, **told).recipe


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: leaf for name, part in value.items() for key, leaf in leaves(part, f"{prefix}.{name}").items()}


def test_the_release_translates_to_open_rs3_released_except_for_the_cosine_length(tmp_path: Path) -> None:
    released = load_recipe("open-rs3-released")
    recipe = loaded(tmp_path, RELEASE | {"system_prompt": released.prompt.system})
    ours, theirs = recipe.model_dump(exclude={"name", "about", "because"}), released.model_dump()
    differing = [key for key, value in leaves(ours).items() if leaves(theirs)[key] != value]
    assert differing == [".reward.terms"]
    assert (recipe.reward.terms[1].params["max_length"], released.reward.terms[1].params["max_length"]) == (1000, 3584)
    same = recipe.reward.terms[1].params | {"max_length": 3584}
    assert same == released.reward.terms[1].params


def test_the_readmes_cosine_length_makes_them_equal(tmp_path: Path) -> None:
    released = load_recipe("open-rs3-released")
    recipe = loaded(tmp_path, RELEASE | {"system_prompt": released.prompt.system, "cosine_max_len": 3584})
    assert recipe.reward == released.reward


def test_every_key_has_one_line_and_table_5_needs_no_more_than_itself(tmp_path: Path) -> None:
    notes = translate(TABLE_5, "grpo.yaml").notes
    given = [note.key for note in notes if note.outcome != "pinned"]
    assert sorted(set(given)) == sorted(
        set(TABLE_5) | {note.key for note in notes if note.key not in TABLE_5 and note.outcome == "ignored"}
    )
    assert {note.key for note in notes} >= set(TABLE_5)


def test_push_to_hub_says_when_it_pushes() -> None:
    note = next(note for note in translate(RELEASE, "x").notes if note.key == "push_to_hub")
    assert note.outcome == "ignored" and "--push" in str(note)


def test_open_r1_style_recipe(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, OPEN_R1)
    assert recipe.train.prompts_per_step == 16 * 16 * 7 // 7
    assert recipe.train.num_train_epochs == 1
    assert recipe.algorithm.beta == 0.04
    assert recipe.rollout.temperature == 0.9
    assert [term.name for term in recipe.reward.terms] == ["accuracy", "format", "tag_count"]
    assert (recipe.data.config, recipe.train.keep_checkpoints) == ("all", 1)
    assert (recipe.validation.num_problems, recipe.validation.every_steps) == (64, 100)


def test_trl_of_today(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, TRL_NOW)
    assert recipe.train.prompts_per_step == 1
    assert (recipe.algorithm.objective, recipe.algorithm.loss_type, recipe.algorithm.epsilon_high) == (
        "cispo",
        "dapo",
        5.0,
    )
    assert recipe.algorithm.sampler_correction_cap == 2.5
    assert (recipe.algorithm.beta, recipe.rollout.temperature, recipe.train.gradient_checkpointing) == (0.0, 1.0, True)
    assert [term.name for term in recipe.reward.terms] == ["accuracy", "my_pkg.rewards:brevity"]


VERSIONS = {  # written for: (beta, temperature, loss, cap, completion limit)
    "trl==0.15.2": (0.04, 0.9, "grpo", None, 256),
    "trl==0.17": (0.04, 0.9, "grpo", None, 256),
    "0.18.1": (0.04, 1.0, "grpo", None, 256),
    "trl==0.19.0": (0.0, 1.0, "grpo", None, 256),
    "trl==0.22": (0.0, 1.0, "dapo", None, 256),
    "trl==0.24.0": (0.0, 1.0, "dapo", 2.0, 256),
    "trl==0.26": (0.0, 1.0, "dapo", 3.0, 256),
    "trl==1.10": (0.0, 1.0, "dapo", 3.0, 512),
}


@pytest.mark.parametrize(("version", "expected"), VERSIONS.items(), ids=VERSIONS)
def test_what_a_file_leaves_out_takes_the_default_of_its_day(version: str, expected: tuple, tmp_path: Path) -> None:
    flat = {"num_generations": 8, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "use_vllm": True}
    recipe = loaded(tmp_path, flat | {"max_steps": 5}, written_for=version, processes=1)
    algorithm, rollout = recipe.algorithm, recipe.rollout
    found = (algorithm.beta, rollout.temperature, algorithm.loss_type, algorithm.sampler_correction_cap)
    assert (*found, rollout.max_completion_length) == expected


GUESSES = {
    "the release": (RELEASE, "TRL 0.16.0 (open-rs)", 3),
    "open-r1 of early 2025": (OPEN_R1, "TRL 0.17.0 (open-r1)", 7),
    "open-r1 goes no further than its last TRL": ({"system_prompt": "x", "beta": 0.0}, "TRL 0.18.0 (open-r1)", 1),
    "a key that went": ({"max_prompt_length": 512}, "TRL 0.27.0", 1),
    "a key that came": ({"vllm_importance_sampling_clip_max": 2.0}, "TRL 1.16.0", 1),
    "a value that came": ({"loss_type": "dapo", "max_prompt_length": 9}, "TRL 0.27.0", 1),
}


@pytest.mark.parametrize(("flat", "written_for", "processes"), GUESSES.values(), ids=GUESSES)
def test_the_version_is_guessed_from_the_keys(flat: dict[str, Any], written_for: str, processes: int) -> None:
    translation = translate(flat, "x")
    assert (translation.written_for, translation.processes) == (written_for, processes)


MEANINGS = {
    "generation batch of two optimiser steps": (
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 100},
        {"train.prompts_per_step": 4, "algorithm.num_minibatches": 2, "train.max_steps": 50},
    ),
    "two passes": (
        {"num_iterations": 2, "max_steps": 100, "save_steps": 10},
        {"train.max_steps": 50, "train.save_steps": 5},
    ),
    "share of the run": ({"save_steps": 0.1, "max_steps": 200}, {"train.save_steps": 20, "train.keep_checkpoints": 10}),
    "warm-up in steps": ({"warmup_steps": 20, "max_steps": 200}, {"optimizer.warmup_ratio": 0.1}),
    "floor as a rate": (
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-7}', "learning_rate": 1e-6},
        {"optimizer.min_lr_rate": pytest.approx(0.1)},
    ),
    "constant schedule": ({"lr_scheduler_type": "constant"}, {"optimizer.lr_scheduler_type": "constant"}),
    "8-bit states": ({"optim": "paged_adamw_8bit"}, {"optimizer.name": "adamw_8bit"}),
    "no scaling": ({"scale_rewards": False}, {"algorithm.scale_rewards": "none"}),
    "micro-batch of one": (
        {"loss_type": "bnpo", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"algorithm.loss_type": "grpo"},
    ),
    "micro-batch of one group": (
        {"loss_type": "bnpo", "per_device_train_batch_size": 8},
        {"algorithm.loss_type": "release"},
    ),
    "local file": ({"dataset_name": "data/train.jsonl.gz"}, {"data.path": "data/train.jsonl.gz", "data.name": None}),
    "mixture of one": (
        {"dataset_mixture": {"datasets": [{"id": "a/b", "config": "c", "split": "s"}]}},
        {"data.name": "a/b", "data.config": "c", "data.split": "s"},
    ),
    "adapter": ({"use_peft": True, "lora_r": 8, "lora_alpha": 16}, {"model.lora.rank": 8, "model.lora.dropout": 0.05}),
    "adapter that is off": ({"use_peft": False, "lora_r": 8}, {"model.lora": None}),
    "server": ({"vllm_server_port": 9000, "use_vllm": True}, {"rollout.vllm.server_url": "http://127.0.0.1:9000"}),
    "model arguments": (
        {"model_init_kwargs": {"dtype": "float32", "use_cache": False}, "bf16": False},
        {"model.dtype": "float32"},
    ),
    "sampling arguments": ({"generation_kwargs": {"top_p": 0.9}, "top_p": 1.0}, {"rollout.top_p": 0.9}),
    "one reward as a word": ({"reward_funcs": "accuracy"}, {"reward.terms": ["accuracy"]}),
    "whole precision": ({"bf16": False}, {"model.dtype": "float32"}),
}


@pytest.mark.parametrize(("flat", "expected"), MEANINGS.values(), ids=MEANINGS)
def test_meaning(flat: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    recipe = loaded(tmp_path, {"num_generations": 8, "per_device_train_batch_size": 8} | flat, processes=1)
    for dotted, value in expected.items():
        here: Any = recipe
        for part in dotted.split("."):
            here = getattr(here, part)
        assert ([term.name for term in here] if dotted == "reward.terms" else here) == value, dotted


REFUSED = {
    "future key": ({"num_generation": 6}, ["`num_generation`", "`num_generations`"]),
    "half precision": ({"fp16": True}, ["fp16"]),
    "both precisions": ({"fp16": True, "bf16": True}, ["`fp16`", "`bf16`"]),
    "two names of one": ({"torch_dtype": "float32", "dtype": "bfloat16"}, ["`torch_dtype`", "`dtype`"]),
    "batch said twice": (
        {"generation_batch_size": 8, "steps_per_generation": 2},
        ["`generation_batch_size`", "`steps_per_generation`"],
    ),
    "groups that do not divide": ({"num_generations": 7}, ["`num_generations`", "`per_device_train_batch_size`"]),
    "weights that do not match": (
        {"reward_funcs": ["accuracy"], "reward_weights": [1, 2]},
        ["`reward_funcs`", "`reward_weights`"],
    ),
    "code reward": ({"reward_funcs": ["code"]}, ["`code`", "sandbox"]),
    "unknown reward": ({"reward_funcs": ["acuracy"]}, ["`acuracy`", "`accuracy`"]),
    "repetition penalty": ({"repetition_penalty": 1.1}, ["repetition_penalty"]),
    "quantised base": ({"load_in_4bit": True}, ["load_in_4bit"]),
    "loss": ({"loss_type": "sapo"}, ["sapo", "dapo"]),
    "schedule": ({"lr_scheduler_type": "cosine_with_restarts"}, ["cosine_with_restarts", "`cosine_with_min_lr`"]),
    "floor left out": ({"lr_scheduler_type": "cosine_with_min_lr"}, ["`lr_scheduler_type", "`lr_scheduler_kwargs`"]),
    "warm-up twice": ({"warmup_steps": 5, "warmup_ratio": 0.5, "max_steps": 100}, ["`warmup_steps`", "`warmup_ratio`"]),
    "several sets": ({"dataset_mixture": {"datasets": [{"id": "a"}, {"id": "b"}]}}, ["open-rs curate"]),
    "keys of different days": (
        {"vllm_device": "auto", "vllm_mode": "server"},
        ["`vllm_device`", "`vllm_mode`", "--written-for"],
    ),
    "mixed with sections": (
        {"train": {"seed": 1}, "learning_rate": 1e-6},
        ["`learning_rate`", "`optimizer.learning_rate`"],
    ),
}


@pytest.mark.parametrize(("flat", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_had_is_refused_in_words(flat: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    sizes = {} if "train" in flat else {"per_device_train_batch_size": 8, "num_generations": 8}
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, sizes | flat, processes=None if "vllm_device" in flat else 1)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["trl==0.13", "trl==9.9", "verl==0.3", "old"])
def test_a_version_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--written-for"):
        translate(RELEASE, "x", written_for=text)


def test_overrides_apply_after_translation(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, RELEASE, "train.max_steps=3", "data.path=x.jsonl")
    assert (recipe.train.max_steps, recipe.data.path, recipe.data.name) == (3, "x.jsonl", None)


def test_kept_keys_go_to_keys_that_a_recipe_has() -> None:
    schema = {key.removeprefix(".") for key in leaves(Recipe().model_dump())}
    targets = {key.goes_to for key in known_keys().values() if key.fate == "kept"}
    assert targets <= schema


def test_the_history_of_a_default() -> None:
    beta = known_keys()["beta"]
    assert [beta.default_at(parse_version(version)) for version in ("0.18.9", "0.19.0", "1.16.0")] == [0.04, 0.0, 0.0]
    assert not known_keys()["vllm_device"].existed_at((0, 18, 0))
