"""Tiny real objects for tests: a random Qwen2, Qwen3 or Llama with a byte-level tokenizer, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from open_rs.models import CausalLM, wrap

ARCHITECTURES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
}
CHAT_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}<assistant>{{ '<think>\\n' }}"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """All 256 bytes and three special tokens: 0 pad, 1 end, 2 assistant."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<end>", "<assistant>"]
    vocabulary = {word: index for index, word in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", additional_special_tokens=["<assistant>"]
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(architecture: str = "qwen2", seed: int = 0, vocabulary: int = 260, tie: bool = True) -> CausalLM:
    """Two layers, 64 wide, 4 heads over 2 key/value heads, random weights large enough to give sharp choices."""
    config_class, model_class, extra = ARCHITECTURES[architecture]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        **extra,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = model_class(config)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(3.0)
    return wrap(module.eval(), tiny_tokenizer(), f"tiny-{architecture}")


def save_tiny_model(directory: Path, architecture: str = "qwen2", seed: int = 0) -> Path:
    """A checkpoint on disk, as a person's own model would lie there."""
    tiny_model(architecture, seed).save_pretrained(directory)
    return directory
