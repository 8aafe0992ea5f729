"""Log-probabilities and entropy from hidden states, and their gradient, without the `[N, T, V]` logits.

`M` trained positions meet the output head a few rows at a time. One tile of `rows x V` logits is made, turned into what
the gradient needs while it lies in the cache, multiplied into both gradients, and overwritten by the next. So a
token-wise objective costs three matrix products (a recomputing backward needs four), and memory holds one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from open_rs.types import UserError

TILE_BYTES = 128 * 2**20  # of logits at a time; `logprob_chunk_tokens` may ask for less
CPU_BLOCK_BYTES = 2**20  # of logits that go through the element-wise passes at a time: what a core's cache holds
DEVICE_BLOCK_BYTES = 64 * 2**20  # the same where launches cost more than memory

# Of the log-probabilities [m] of the trained tokens in a slice of M: the loss's derivative by each of them [m].
LossGradient = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True, slots=True)
class Scores:
    """What the head says of M tokens; allocated once, filled in tile by tile."""

    logprobs: Tensor  # [M] f32
    entropies: Tensor  # [M] f32
    sums: Tensor  # [M] f32: sum over the vocabulary of exp(logit - greatest logit)

    @classmethod
    def empty(cls, targets: Tensor) -> Scores:
        return cls(*(torch.empty(len(targets), device=targets.device) for _ in range(3)))

    def part(self, rows: slice) -> Scores:
        return Scores(self.logprobs[rows], self.entropies[rows], self.sums[rows])


@dataclass(frozen=True, slots=True)
class OutputHead:
    """`logits = cap(scale * (hidden @ weight.T + bias)) / temperature`, with `cap(x) = softcap * tanh(x / softcap)`."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    scale: float
    softcap: float | None
    temperature: float
    chunk_tokens: int  # rows of hidden states that meet the weight at a time, at most

    @torch.no_grad()
    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [M] of `targets` [M] after `hidden` [M, H]."""
        scores = Scores.empty(targets)
        for rows, tile in self._tiles(hidden):
            self._normalise(tile, targets[rows], scores.part(rows))
        return scores.logprobs, scores.entropies

    @torch.no_grad()
    def score_and_backpropagate(
        self, hidden: Tensor, targets: Tensor, loss_gradient: LossGradient
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score, add the loss's gradient to `weight.grad` (and `bias.grad`), and return it for `hidden` [M, H] too.

        Returns (logprobs [M], entropies [M], gradient [M, H]). A frozen weight gets no gradient and costs no product.
        """
        scores = Scores.empty(targets)
        hidden_gradient = torch.empty_like(hidden)
        for rows, tile in self._tiles(hidden):
            part = scores.part(rows)
            self._normalise(tile, targets[rows], part)
            # The tile now holds `sums * (p - onehot)`, so this turns a row of it into d loss / d logits.
            factor = (-self._gain * loss_gradient(part.logprobs, rows) / part.sums).unsqueeze(1)  # [m, 1]
            slopes = tile.to(hidden.dtype)  # [m, V]
            hidden_gradient[rows] = (slopes @ self.weight) * factor
            if self.weight.requires_grad:
                _add_product(_gradient(self.weight), slopes.T, (hidden[rows] * factor).to(hidden.dtype))
            if self.bias is not None and self.bias.requires_grad:
                _gradient(self.bias).add_((tile.float() * factor).sum(0))
        return scores.logprobs, scores.entropies, hidden_gradient

    @property
    def _gain(self) -> float:
        return self.scale / self.temperature

    def _tiles(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, logits [m, V]) in one reused buffer; without the cap, scale and temperature are applied."""
        vocabulary, dtype = self.weight.shape[0], _logits_dtype(hidden)
        most = max(1, min(self.chunk_tokens, TILE_BYTES // (vocabulary * dtype.itemsize), len(hidden)))
        buffer = torch.empty(most, vocabulary, dtype=dtype, device=hidden.device)
        for start in range(0, len(hidden), most):
            rows = slice(start, min(start + most, len(hidden)))
            yield rows, self._logits(hidden[rows], buffer[: rows.stop - start])

    def _logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        gain = self.scale if self.softcap is not None else self._gain
        if out.dtype == hidden.dtype:
            torch.addmm(out, hidden, self.weight.T, beta=0, alpha=gain, out=out)
        else:
            torch.mm(hidden, self.weight.T, out_dtype=out.dtype, out=out)
            out.mul_(gain)
        return out if self.bias is None else out.add_(self.bias, alpha=gain)

    def _normalise(self, tile: Tensor, targets: Tensor, scores: Scores) -> None:
        """Turn logits [m, V] into `exp(z - max) - onehot * sum` in place, a cacheful of rows at a time.

        The scratch is allocated once: many short-lived blocks of a megabyte would leave the heap in pieces.
        """
        block_bytes = CPU_BLOCK_BYTES if tile.device.type == "cpu" else DEVICE_BLOCK_BYTES
        most = max(1, block_bytes // (4 * tile.shape[1]))
        scratch = torch.empty(2, min(most, len(tile)), tile.shape[1], device=tile.device)
        for start in range(0, len(tile), most):
            rows = slice(start, min(start + most, len(tile)))
            self._normalise_block(tile[rows], targets[rows], scores.part(rows), scratch[:, : rows.stop - start])

    def _normalise_block(self, tile: Tensor, targets: Tensor, scores: Scores, scratch: Tensor) -> None:
        weights = scratch[0]
        logits = tile if tile.dtype == torch.float32 else scratch[1].copy_(tile)
        slope = None
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_()
            slope = 1 - logits * logits
            logits.mul_(self.softcap / self.temperature)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        torch.exp(logits, out=weights)
        chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        torch.sum(weights, dim=1, out=scores.sums)
        log_sums = scores.sums.log()
        torch.sub(chosen, log_sums, out=scores.logprobs)
        torch.sub(log_sums, logits.mul_(weights).sum(dim=1).div_(scores.sums), out=scores.entropies)
        weights.scatter_add_(1, targets.unsqueeze(1), -scores.sums.unsqueeze(1))
        tile.copy_(weights if slope is None else weights.mul_(slope))


def find_head(causal: Any, temperature: float, chunk_tokens: int) -> OutputHead:
    """The output head of a transformers model, with its scale and cap found from the config and proven on a probe.

    Raises UserError where the decoder gives no hidden states, the head is no plain linear layer, or the
    log-probabilities computed here differ from those of the model's own forward.
    """
    linear = causal.get_output_embeddings()
    if type(linear) is not nn.Linear or causal.base_model is causal:
        raise UserError(
            f"model.name_or_path: {type(causal).__name__} has no decoder with a plain linear output head, which the "
            "learner needs; use a decoder-only model, and leave `lm_head` out of model.lora.target_modules"
        )
    hidden, logits = _probe(causal)
    for scale, softcap in _candidates(causal.config.get_text_config()):
        head = OutputHead(linear.weight, linear.bias, scale, softcap, 1.0, chunk_tokens)
        if _agrees(head, hidden, logits):
            return OutputHead(linear.weight, linear.bias, scale, softcap, temperature, chunk_tokens)
    raise UserError(
        f"model.name_or_path: {type(causal).__name__} does something to its logits that the learner does not know "
        "(beyond a scale and a soft cap); its log-probabilities would be wrong, so it is refused"
    )


@torch.no_grad()
def _probe(causal: Any) -> tuple[Tensor, Tensor]:
    """Hidden states [m, H] of a few tokens, and the logits [m, V] that the model itself makes of them."""
    tokens = torch.arange(8, device=causal.device).unsqueeze(0) % causal.config.get_text_config().vocab_size
    hidden = causal.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return hidden[0], causal(input_ids=tokens, use_cache=False).logits[0].float()


def _candidates(config: Any) -> list[tuple[float, float | None]]:
    """(scale, cap) pairs that model families use: Granite divides, Cohere and Falcon-H1 multiply, Gemma 2 caps."""
    named = [getattr(config, name, None) for name in ("logit_scale", "logits_scaling", "lm_head_multiplier")]
    scales = [1.0, *(value for scale in named if scale for value in (scale, 1 / scale))]
    softcap = getattr(config, "final_logit_softcapping", None)
    return [(scale, cap) for cap in dict.fromkeys((softcap, None)) for scale in scales]


def _agrees(head: OutputHead, hidden: Tensor, logits: Tensor) -> bool:
    targets = logits.argmin(dim=1)  # the least likely tokens show a wrong scale or cap best
    logprobs, _ = head.score(hidden, targets)
    expected = logits.log_softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    tolerance = 1e-4 if hidden.dtype == torch.float32 else 3e-2
    return bool(((logprobs - expected).abs() <= tolerance * expected.abs().clamp(min=1)).all())


def _logits_dtype(hidden: Tensor) -> torch.dtype:
    """fp32 wherever the backend can keep it; elsewhere logits are rounded as the model's own head rounds them."""
    return torch.float32 if hidden.is_cuda else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, with products of bf16 kept in the total's fp32 where the backend can."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.add_(left @ right)


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
    return parameter.grad
