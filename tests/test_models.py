"""Models load from anywhere, say what they are, and save what plain transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_rs.config.schema import LoraConfig, ModelConfig
from open_rs.models import load_model
from open_rs.types import UserError
from tiny import ARCHITECTURES, save_tiny_model, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_loads_with_plain_transformers_and_gives_the_same_logits(
    tmp_path: Path, architecture: str
) -> None:
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(again(tokens).logits, model.module(tokens).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == model.tokenizer.chat_template


def test_named_weights_hold_the_tied_head() -> None:
    weights = dict(tiny_model().named_weights())
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


@pytest.mark.parametrize("use_rslora", [False, True], ids=["lora", "rslora"])
def test_an_adapter_is_merged_into_the_weights_that_engines_and_releases_get(tmp_path: Path, use_rslora: bool) -> None:
    place = save_tiny_model(tmp_path / "base")
    lora = LoraConfig(rank=4, alpha=8, use_rslora=use_rslora)
    model = load_model(ModelConfig(name_or_path=str(place), device="cpu", lora=lora))
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.allclose(merged(tokens).logits, model.module(tokens).logits, atol=1e-4)
    assert not torch.allclose(merged(tokens).logits, tiny_model().module(tokens).logits, atol=1e-2)
    assert set(dict(model.named_weights())) == set(dict(tiny_model().named_weights()))


def test_every_stop_id_of_generation_config_model_and_tokenizer_counts() -> None:
    model = tiny_model()
    model.module.generation_config.eos_token_id = [7, 9]
    from open_rs.models import stop_ids

    assert stop_ids(model.module, model.tokenizer) == {1, 7, 9}


REFUSED = {
    "a missing directory": ("./nowhere", "no such directory"),
    "an unknown Hub id": ("nobody/nothing", "check the Hub id and the network"),
}


@pytest.mark.parametrize(("name", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_can_not_be_had_is_one_sentence(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_model(ModelConfig(name_or_path=name, device="cpu"))


def test_a_directory_without_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold a transformers checkpoint"):
        load_model(ModelConfig(name_or_path=str(tmp_path), device="cpu"))


def test_fewer_embeddings_than_words_are_refused(tmp_path: Path) -> None:
    tiny_model(vocabulary=100).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"words but the model embeds 100"):
        load_model(ModelConfig(name_or_path=str(tmp_path), device="cpu"))


def test_an_adapter_on_layers_that_do_not_exist_is_refused(tmp_path: Path) -> None:
    place = save_tiny_model(tmp_path)
    with pytest.raises(UserError, match=r"model\.lora\.target_modules"):
        load_model(ModelConfig(name_or_path=str(place), device="cpu", lora=LoraConfig(target_modules=("nothing",))))
