"""The committed checkpoint: small, loads with plain `transformers`, loses no text, opens `<think>` in the prompt."""

import json
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import open_rs.assets
from open_rs.assets.make_tiny import TASK, measure
from open_rs.data.arithmetic import generate

DIRECTORY = Path(open_rs.assets.__file__).parent / "open-rs-tiny"
TEXTS = {
    "unicode": "naïve café — 日本語 🙂 \U0010ffff",
    "control": "\x00\x01\t\r\n\u2028 end",
    "spaces": "  two  spaces, trailing  ",
    "latex": r"$\frac{1}{2} \boxed{\text{a}}$",
    "tags": "<think>\nno\n</think>\n<|im_end|><|endoftext|><|im_start|>",
    "contractions": "don't WE'LL 'tis",
}


@cache
def load_tokenizer():
    return AutoTokenizer.from_pretrained(DIRECTORY)


@pytest.fixture
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(DIRECTORY)


def test_the_directory_is_at_most_8_mb_of_safetensors_and_text():
    files = list(DIRECTORY.iterdir())
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".jinja", ".md"}


def test_it_is_a_qwen2_in_float32():
    assert json.loads((DIRECTORY / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    weights = load_file(DIRECTORY / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_is_lost(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == text


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_in_normal_form_and_within_the_vocabulary(text):
    tokenizer = load_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert all(0 <= i < len(tokenizer) for i in ids)


def test_the_file_alone_makes_the_same_tokens(tokenizer):
    plain = PreTrainedTokenizerFast.from_pretrained(DIRECTORY)
    assert tokenizer.is_fast
    for text in TEXTS.values():
        assert plain(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_tags_and_digits_are_whole_tokens(tokenizer):
    assert tokenizer.tokenize("<think>\n12</think>\\boxed{3") == ["<think>", "Ċ", "1", "2", "</think>", "\\boxed{", "3"]
    kept = tokenizer.decode(tokenizer("<think></think>\\boxed{<|im_end|>")["input_ids"], skip_special_tokens=True)
    assert kept == "<think></think>\\boxed{"


def test_stop_and_padding_differ_and_agree_with_the_model(tokenizer, model):
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) <= model.config.vocab_size


def test_the_template_opens_the_reasoning_and_cuts_earlier_reasoning(tokenizer):
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "1+1\nso 2\n</think>\nAnswer: 2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nAdd.<|im_end|>\n"
        "<|im_start|>user\n1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\nAnswer: 2<|im_end|>\n"
        "<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_it_is_honestly_imperfect_on_problems_it_never_saw(tokenizer, model):
    problems = generate(TASK.model_copy(update={"seed": 7}), "held_out", 200)
    torch.manual_seed(0)
    assert 0.25 <= measure(model, tokenizer, problems, temperature=1.0).right <= 0.60
