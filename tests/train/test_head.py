"""The chunked head against `log_softmax` over all the logits, whatever the head does to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from open_rs.train import head as head_module
from open_rs.train.head import OutputHead, find_head
from open_rs.types import UserError
from train.tiny_policy import tiny_model

ROWS, WIDTH, VOCABULARY = 23, 16, 97
SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FAMILIES: dict[str, Any] = {
    "granite divides": lambda: GraniteForCausalLM(GraniteConfig(logits_scaling=7.0, **SHARED)),
    "cohere multiplies": lambda: CohereForCausalLM(CohereConfig(logit_scale=0.25, **SHARED)),
    "gemma 2 caps": lambda: Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=0.5, **SHARED)),
    "phi adds a bias": lambda: PhiForCausalLM(PhiConfig(**SHARED)),
    "gpt-2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=2)),
}


def make(**changes: Any) -> OutputHead:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=generator))
    settings = {"bias": None, "scale": 1.0, "softcap": None, "temperature": 0.7, "chunk_tokens": 5} | changes
    if settings["bias"] == "yes":
        settings["bias"] = torch.nn.Parameter(torch.randn(VOCABULARY, generator=generator))
    return OutputHead(weight, **settings)


def naive(head: OutputHead, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head.scale * torch.nn.functional.linear(hidden, head.weight, head.bias)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    logprobs = (logits / head.temperature).log_softmax(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all rows at once": {"chunk_tokens": 1000},
    "scaled": {"scale": 0.125},
    "capped": {"softcap": 3.0},
    "capped, scaled, biased": {"softcap": 3.0, "scale": 0.5, "bias": "yes"},
    "biased": {"bias": "yes"},
}


@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS.keys())
def test_logprobs_entropy_and_gradients_are_those_of_the_full_logits(settings: dict[str, Any]) -> None:
    head = make(**settings)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    logprobs, entropies = naive(head, hidden, targets)
    (logprobs**2).sum().backward()
    leaves = [hidden, head.weight, *([] if head.bias is None else [head.bias])]
    expected = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    found = head.score_and_backpropagate(hidden.detach(), targets, lambda values, rows: 2 * values)
    torch.testing.assert_close(found[:2], (logprobs.detach(), entropies.detach()))
    torch.testing.assert_close(head.score(hidden, targets), found[:2])
    gradients = [found[2], *(leaf.grad for leaf in leaves[1:])]
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_a_confident_token_survives_bf16() -> None:
    """With p near 1, `1 - p` must be formed before rounding, or noise of 0.4 % swallows it."""
    exact = make(temperature=1.0)
    hidden = 3 * exact.weight.detach()[:8]
    targets = torch.arange(8)
    rounded = OutputHead(torch.nn.Parameter(exact.weight.bfloat16()), None, 1.0, None, 1.0, 1000)
    rounded.weight.grad_dtype = torch.float32
    logprobs, _, slopes = rounded.score_and_backpropagate(hidden.bfloat16(), targets, lambda v, r: torch.ones_like(v))
    assert logprobs.exp().max() > 0.99
    widened = OutputHead(torch.nn.Parameter(rounded.weight.detach().float()), None, 1.0, None, 1.0, 1000)
    _, _, expected = widened.score_and_backpropagate(
        hidden.bfloat16().float(), targets, lambda v, r: torch.ones_like(v)
    )
    norms = expected.norm(dim=1)
    assert ((slopes.float() - expected).norm(dim=1) <= 0.5 * norms).all()


def test_a_frozen_head_gets_no_gradient() -> None:
    head = make()
    head.weight.requires_grad_(False)
    head.score_and_backpropagate(torch.ones(2, WIDTH), torch.tensor([1, 2]), lambda values, rows: values)
    assert head.weight.grad is None


def test_no_more_than_a_tile_of_logits_exists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "TILE_BYTES", 4 * VOCABULARY * 3)
    with torch.no_grad():
        rows = [len(tile) for _, tile in make(chunk_tokens=1000)._tiles(torch.ones(ROWS, WIDTH))]
    assert max(rows) == 3
    assert sum(rows) == ROWS


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_what_a_head_does_to_its_logits_is_honoured(family: Any) -> None:
    torch.manual_seed(0)
    model = family().eval()
    head = find_head(model, 0.7, 1000)
    tokens = torch.arange(2, 14)[None]
    with torch.no_grad():
        expected = (model(input_ids=tokens).logits[0, :-1] / 0.7).log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        hidden = model.base_model(input_ids=tokens).last_hidden_state[0, :-1]
    torch.testing.assert_close(head.score(hidden, tokens[0, 1:])[0], expected)


def test_a_head_that_does_something_else_is_refused() -> None:
    model = tiny_model().module

    def square(module: Any, args: Any, result: Any) -> Any:
        result.logits = result.logits * result.logits.abs()
        return result

    model.register_forward_hook(square)
    with pytest.raises(UserError, match="does something to its logits that the learner does not know"):
        find_head(model, 1.0, 1000)


def test_a_model_without_a_plain_head_is_refused() -> None:
    model = tiny_model().module
    model.lm_head = torch.nn.Sequential(model.lm_head)
    with pytest.raises(UserError, match="has no decoder with a plain linear output head"):
        find_head(model, 1.0, 1000)
