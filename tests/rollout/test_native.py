"""The compiled kernels compute what torch computes, and their absence changes nothing but the speed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from open_rs.models import CausalLM
from open_rs.rollout import Request, Sampling, decode
from open_rs.rollout.attention import Attention, HeadNorms, NativeAttention, cache_shape
from open_rs.rollout.cache import SlotCache
from open_rs.rollout.local import LocalEngine
from open_rs.rollout.native import Kernels, fits, load_kernels
from rollout.contract import prompt_of, sample_all, tiny_model

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def kernels_of(dtype: torch.dtype) -> Kernels:
    kernels = load_kernels(dtype)
    if kernels is None:
        pytest.skip("no C compiler that knows OpenMP on this machine")
    return kernels


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet; returns the cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_kernels.cache_clear()
    yield tmp_path / "open-rs"
    load_kernels.cache_clear()


@DTYPES
@pytest.mark.parametrize("width", [16, 48, 128, 896])
def test_the_norm_is_torchs(dtype: torch.dtype, width: int) -> None:
    x, weight = torch.randn(9, width).to(dtype) * 3, torch.rand(width).to(dtype)
    expected = F.rms_norm(x.float(), (width,), weight.float(), 1e-6)
    torch.testing.assert_close(
        kernels_of(dtype).rms_norm(x, weight, 1e-6).float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


def attentions(dtype: torch.dtype, width: int, num_heads: int, normed: bool) -> tuple[Attention, NativeAttention]:
    """Torch's way and the kernel's over caches with the same random tokens, 7 slots of 160."""
    model = tiny_model("qwen2", dtype)
    config = model.base.config
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = num_heads, 2, width
    model.base.model.rotary_emb = type(model.base.model.rotary_emb)(config)
    norm = torch.nn.RMSNorm(width, 1e-6, dtype=dtype)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.variance_epsilon = norm.eps  # the name that transformers gives it
    norms = [HeadNorms(norm, norm) if normed else None] * 2
    kernels = kernels_of(dtype)
    torch_cache = SlotCache(cache_shape(model, None), 7, 160, model.device)
    native_cache = SlotCache(cache_shape(model, kernels), 7, 160, model.device)
    native_cache.tokens.normal_()
    torch_cache.tokens.copy_(native_cache.tokens)
    return Attention(model, torch_cache, norms), NativeAttention(model, native_cache, norms, kernels)


@DTYPES
@pytest.mark.parametrize("normed", [False, True], ids=["plain", "normed heads"])
@pytest.mark.parametrize(("width", "num_heads"), [(32, 2), (64, 14), (96, 4), (128, 12), (256, 2)])
def test_attention_is_torchs_at_every_width(dtype: torch.dtype, width: int, num_heads: int, normed: bool) -> None:
    torch.manual_seed(0)
    by_torch, by_kernel = attentions(dtype, width, num_heads, normed)
    positions = torch.tensor([0, 1, 15, 16, 63, 64, 159])  # ends of lanes, tiles and slots
    projected = torch.randn(7, (num_heads + 4) * width).to(dtype)
    with torch.inference_mode():
        for layer in range(2):
            expected = by_torch.step(positions, 160)(layer, projected)
            mixed = by_kernel.step(positions, 160)(layer, projected)
            torch.testing.assert_close(
                mixed.float(), expected.float(), atol=2 * TOLERANCE[dtype], rtol=TOLERANCE[dtype]
            )
            kept, as_torch = (side.slots.tokens[layer].float() for side in (by_kernel, by_torch))
            torch.testing.assert_close(kept, as_torch, atol=2 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@DTYPES
def test_a_row_does_not_depend_on_the_rows_beside_it(dtype: torch.dtype) -> None:
    _, attention = attentions(dtype, 64, 4, normed=False)
    positions, projected = torch.arange(7) * 20, torch.randn(7, 8 * 64).to(dtype)
    before = attention.slots.tokens.clone()
    together = attention.step(positions, 160)(0, projected)
    attention.slots.tokens.copy_(before)
    few = attention.step(positions[:3], 160)(0, projected[:3])
    assert torch.equal(few, together[:3])


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    by_torch, by_kernel = attentions(torch.float32, 32, 2, normed=False)
    projected, positions = torch.randn(7, 6 * 32) * 1e4, torch.full((7,), 159)
    expected = by_torch.step(positions, 160)(0, projected)
    torch.testing.assert_close(by_kernel.step(positions, 160)(0, projected), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "model_width", "head_width", "known"),
    [
        (torch.float32, 896, 64, True),
        (torch.bfloat16, 128, 32, True),
        (torch.float16, 128, 32, False),
        (torch.float32, 120, 32, False),
        (torch.float32, 128, 16, False),
        (torch.float32, 128, 512, False),
    ],
)
def test_what_the_kernels_fit(dtype: torch.dtype, model_width: int, head_width: int, known: bool) -> None:
    assert fits(dtype, model_width, head_width) == known


def samples(model: CausalLM) -> object:
    engine = LocalEngine(max_concurrent=8)
    engine.load(model, 0)
    rollouts = sample_all(engine, [Request(prompt_of(9), (0, 1, 2))], Sampling(max_tokens=12, seed=3))
    return {key: rollout.tokens for key, rollout in rollouts.items()}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OPEN_RS_KERNELS": "off"}, ""),
        ({"PATH": "/nowhere"}, "no C compiler"),
        ({"CC": "false"}, "can't build the sampling kernels"),
    ],
    ids=["switched off", "no compiler", "a compiler that fails"],
)
def test_without_kernels_the_samples_are_the_same(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_kernels = samples(tiny_model())
    load_kernels.cache_clear()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert samples(tiny_model()) == with_kernels
    assert decode.kernels_of(tiny_model()) is None
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


def test_kernels_are_compiled_once_and_kept(fresh: Path) -> None:
    assert load_kernels(torch.float32) is not None
    [library] = fresh.iterdir()
    made = library.stat().st_mtime_ns
    load_kernels.cache_clear()
    assert load_kernels(torch.float32) is not None
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [made]
    assert load_kernels(torch.bfloat16) is not None
    assert len(list(fresh.iterdir())) == 2


def test_only_the_user_can_write_where_libraries_lie(fresh: Path) -> None:
    load_kernels(torch.float32)
    assert fresh.stat().st_mode & 0o077 == 0


def test_a_norm_of_another_dtype_is_left_to_torch() -> None:
    model = tiny_model("qwen2", torch.bfloat16)
    assert decode.kernels_of(model) is not None
    model.base.model.norm.float()
    assert decode.kernels_of(model) is None
