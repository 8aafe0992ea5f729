"""One sampling step: counter-based noise, truncation, and an inverse-CDF draw with its log-probability.

The noise of a token is a pure function of (seed, step, problem id, sample, position), so a sample depends neither on
its batch, nor on the order of requests, nor on a resume. Each row costs one uniform number rather than `V` of them.
Legend: `n` rows decoded side by side, `V` vocabulary, `B` blocks of `BLOCK` words.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
import torch.nn.functional as F

from open_rs.rollout.engine import Sampling

BLOCK = 128  # words a block; the draw finds the block first, then the word inside it
WORKING_SET = 1 << 18  # numbers a CPU works on at a time: 1 MiB in float32 stays in its second-level cache
GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64, the increment of splitmix64 (Steele et al. 2014)
MIX_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
MIX_SECOND = -7723592293110705685  # 0x94D049BB133111EB
BELOW_ONE = 1.0 - 2.0**-50


def row_key(sampling: Sampling, problem_id: str, sample: int) -> int:
    """The 64-bit key (as a signed integer) from which all noise of one sample comes."""
    text = f"{sampling.seed}/{sampling.step}/{sample}/{problem_id}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def uniform(keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One number in [0, 1) for each (key, position) [n], int64 both: splitmix64 at counter `position`."""
    state = keys + (positions + 1) * GOLDEN_GAMMA
    state = (state ^ _shift_right(state, 30)) * MIX_FIRST
    state = (state ^ _shift_right(state, 27)) * MIX_SECOND
    bits = state ^ _shift_right(state, 31)
    if _precise(keys.device) is torch.float32:
        return _shift_right(bits, 40).to(torch.float32) * 2.0**-24
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def _precise(device: torch.device) -> torch.dtype:
    """The widest float of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _shift_right(state: torch.Tensor, places: int) -> torch.Tensor:
    """Logical shift of int64: the sign bit is not copied."""
    return (state >> places) & ((1 << (64 - places)) - 1)


def sample(
    logits: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row from `logits` [n, V]; return tokens [n] i64 and their log-probabilities [n] f32.

    Log-probabilities are those of the sampling temperature before top-k, top-p and min-p cut the distribution (applied
    in that order, as in transformers; words that tie with the last kept one are kept). Temperature 0 takes the most
    likely word and reports its log-probability at temperature 1.
    """
    if logits.device.type != "cpu":
        return _sample_rows(logits, keys, positions, sampling)
    rows = max(1, WORKING_SET // logits.shape[-1])
    parts = zip(logits.split(rows), keys.split(rows), positions.split(rows), strict=True)
    tokens, logprobs = zip(*(_sample_rows(*part, sampling) for part in parts), strict=True)
    return torch.cat(tokens), torch.cat(logprobs)


def _sample_rows(
    logits: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    inverse_temperature = 1.0 / (sampling.temperature or 1.0)
    highest = logits.amax(-1, keepdim=True).float()  # [n, 1]
    weights = logits - highest  # [n, V] float32, whatever the logits are
    if inverse_temperature != 1.0:
        weights *= inverse_temperature
    weights.exp_()
    weights = F.pad(weights, (0, -weights.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))  # [n, B, BLOCK]
    block_sums = weights.sum(-1)  # [n, B]
    noise = uniform(keys, positions)
    block_ends = block_sums.to(noise.dtype).cumsum(-1)
    log_total = block_ends[:, -1].log().float()
    if sampling.temperature == 0.0:
        return logits.argmax(-1), -log_total
    if is_truncated(sampling):
        floor = _smallest_kept(weights.flatten(1), sampling)  # [n]
        weights.masked_fill_(weights < floor[:, None, None], 0.0)
        block_sums = weights.sum(-1)
        block_ends = block_sums.to(noise.dtype).cumsum(-1)
    tokens = _draw(weights, block_sums, block_ends, noise)
    chosen = (logits.gather(-1, tokens[:, None]) - highest) * inverse_temperature
    return tokens, chosen[:, 0] - log_total


def is_truncated(sampling: Sampling) -> bool:
    """Whether any of top-k, top-p and min-p cuts the distribution."""
    return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _draw(
    weights: torch.Tensor, block_sums: torch.Tensor, block_ends: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Invert the cumulative distribution in two levels. A word of weight 0 can't be drawn, whatever the rounding."""
    target = (noise.clamp(max=BELOW_ONE) * block_ends[:, -1])[:, None]  # [n, 1]
    block = torch.searchsorted(block_ends, target, right=True)  # [n, 1]
    block_sum = block_sums.gather(-1, block).to(noise.dtype)
    fraction = (1.0 - (block_ends.gather(-1, block) - target) / block_sum).clamp(0.0, BELOW_ONE)
    inside = weights.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0].to(noise.dtype).cumsum(-1)  # [n, BLOCK]
    word = torch.searchsorted(inside, fraction * inside[:, -1:], right=True)
    return (block * BLOCK + word)[:, 0]


def _smallest_kept(weights: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The weight [n] under which words are cut. The largest weight of a row is 1."""
    floor = weights.new_zeros(weights.shape[0])
    if sampling.top_k > 0:
        floor = weights.topk(min(sampling.top_k, weights.shape[-1]), -1).values[:, -1]
    if sampling.top_p < 1.0:
        floor = torch.maximum(floor, _top_p_floor(weights, floor, sampling.top_p))
    if sampling.min_p > 0.0:
        floor = floor.clamp(min=sampling.min_p)
    return floor


def _top_p_floor(weights: torch.Tensor, floor: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest weight of the shortest head whose mass reaches `top_p`.

    Words lighter than `(1 - top_p) * mass / V` weigh less than the tail together, so only the rest needs sorting.
    """
    mass = weights.masked_fill(weights < floor[:, None], 0.0).sum(-1)
    negligible = torch.maximum(floor, (1.0 - top_p) * mass / weights.shape[-1])
    num_candidates = int((weights >= negligible[:, None]).sum(-1).amax())
    heaviest = weights.topk(num_candidates, -1).values  # [n, candidates], falling
    heaviest = heaviest.masked_fill(heaviest < negligible[:, None], 0.0)
    mass_before = heaviest.to(_precise(weights.device)).cumsum(-1) - heaviest
    num_kept = (mass_before < top_p * mass[:, None]).sum(-1, keepdim=True)
    return heaviest.gather(-1, (num_kept - 1).clamp(min=0))[:, 0]
