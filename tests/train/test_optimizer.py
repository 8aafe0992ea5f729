"""No update is lost: bf16 weights with masters move as fp32 does, with states in 32 or in 8 bit."""

from __future__ import annotations

import pytest
import torch

from open_rs.train.optimizer import BLOCK, MasterAdamW, _levels, join_master, noise, split_master

STEPS, RATE = 100, 1e-6


def gradients(step: int, shape: torch.Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(shape, generator=generator) * 0.1 + 0.05


def moved(dtype: torch.dtype, build) -> torch.Tensor:
    """How far 8,192 weights around 0.02 go in 100 steps, as the difference of fp32 masters."""
    start = (torch.randn(64, 128, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    weight = torch.nn.Parameter(start.to(dtype).clone())
    if dtype != torch.float32:
        weight.grad_dtype = None  # any
    optimizer = build([weight])
    for step in range(STEPS):
        gradient = gradients(step, weight.shape)
        weight.grad = gradient if isinstance(optimizer, MasterAdamW) else gradient.to(dtype)
        optimizer.step()
    end = weight.detach()
    if dtype == torch.bfloat16 and isinstance(optimizer, MasterAdamW):
        end = join_master(end.flatten(), optimizer.state_of(weight)["remainder"]).view_as(end)
    return end.float() - start.float()


def master(**settings):
    return lambda parameters: MasterAdamW([{"params": parameters}], lr=RATE, **settings)


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return ((left - right).norm() / right.norm()).item()


@pytest.fixture(scope="module")
def reference() -> torch.Tensor:
    """What torch's own AdamW does in fp32."""
    return moved(torch.float32, lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.0))


def test_fp32_steps_as_torch_does(reference: torch.Tensor) -> None:
    assert distance(moved(torch.float32, master()), reference) < 1e-4  # of sums at 0.02, fp32 keeps no more


def test_bf16_weights_lose_no_update(reference: torch.Tensor) -> None:
    assert distance(moved(torch.bfloat16, master()), reference) < 1e-4


def test_8_bit_states_follow_fp32(reference: torch.Tensor) -> None:
    assert distance(moved(torch.bfloat16, master(eight_bit=True)), reference) < 0.02


def test_plain_bf16_loses_most_of_it(reference: torch.Tensor) -> None:
    plain = moved(torch.bfloat16, lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.0))
    assert distance(plain, reference) > 0.5


def test_the_working_weight_is_the_nearest_bf16_of_its_master() -> None:
    value = torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * torch.logspace(-20, 20, 10_000)
    weight, remainder = torch.empty(10_000, dtype=torch.bfloat16), torch.empty(10_000, dtype=torch.int16)
    split_master(value, weight, remainder)
    assert torch.equal(join_master(weight, remainder), value)
    assert ((weight.float() - value).abs() <= (value.bfloat16().float() - value).abs()).all()


def test_weight_decay_shrinks_as_torch_does() -> None:
    start = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = [
        MasterAdamW([{"params": [ours]}], lr=1e-2, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1),
    ]
    for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
        weight.grad = gradients(0, weight.shape)
        optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_a_parameter_longer_than_a_slice_is_stepped_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {bit: moved(torch.bfloat16, master(eight_bit=bit)) for bit in (False, True)}
    monkeypatch.setattr("open_rs.train.optimizer.SLICE_ELEMENTS", 4 * BLOCK)
    for bit, expected in whole.items():
        assert torch.equal(moved(torch.bfloat16, master(eight_bit=bit)), expected)


def test_no_gradient_is_a_gradient_of_zeros() -> None:
    found = []
    for gradient in (None, torch.zeros(64, 128)):
        weight = torch.nn.Parameter(torch.ones(64, 128))
        optimizer = MasterAdamW([{"params": [weight]}], lr=1e-2)
        weight.grad = torch.ones(64, 128)
        optimizer.step()
        weight.grad = gradient
        optimizer.step()
        found.append(weight.detach())
    assert torch.equal(*found)
    assert (found[0] < 1 - 1.5e-2).all()  # momentum


def test_gradients_are_gone_after_the_step() -> None:
    weight = torch.nn.Parameter(torch.ones(8))
    optimizer = MasterAdamW([{"params": [weight]}], lr=1e-2)
    weight.grad = torch.ones(8)
    optimizer.step()
    assert weight.grad is None


def test_8_bit_states_take_a_quarter() -> None:
    weight = torch.nn.Parameter(torch.ones(1024, 256))
    state = MasterAdamW([{"params": [weight]}], lr=1e-2, eight_bit=True).state_of(weight)
    assert sum(tensor.nbytes for tensor in state.values()) < 2.1 * weight.numel()


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_a_byte_has_256_levels(name: str) -> None:
    levels = _levels(name, "cpu")
    assert len(levels) == 256
    assert (levels[0].item(), levels[-1].item()) == ((-levels[-2]).item() if name == "exp_avg" else 0.0, 1.0)
    assert 0.0 in levels.tolist()


def test_noise_is_even_and_differs_by_place_and_step() -> None:
    first, second = (noise(slice(0, 100_000), torch.tensor(step)) for step in (1, 2))
    assert first.mean().item() == pytest.approx(0.5, abs=0.005)
    assert first.std().item() == pytest.approx(12**-0.5, abs=0.005)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.02
    assert torch.equal(noise(slice(500, 600), torch.tensor(1)), first[500:600])
