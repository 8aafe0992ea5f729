"""The in-process engine: samples from the policy's own working weights with continuous batching.

Finished rows leave at once, waiting requests take their slots, and the last active slot moves into a hole, so that
active rows always are the first ones. Qwen2, Qwen3 and Llama decode through `decode.Decoder`; any other causal model
takes `general.generate`, which is correct and slower. Legend: `n` active rows, `S` slots, `C` completion tokens.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from open_rs.models import CausalLM
from open_rs.prompts import Prompt
from open_rs.rollout.cache import TOKEN_STEP, round_up
from open_rs.rollout.decode import Decoder, is_supported
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.general import Row, to_rollout
from open_rs.rollout.general import generate as generate_any
from open_rs.rollout.sampling import row_key, sample
from open_rs.types import Rollout, UserError

logger = logging.getLogger(__name__)


class LocalEngine:
    """Sample in this process, from the weights that the learner trains.

    `max_concurrent` sequences are decoded side by side; `cache_tokens` bounds the key/value cache (absent: room for
    `max_concurrent` sequences of the longest request). A generator that is closed early frees everything it held.
    """

    def __init__(self, max_concurrent: int = 64, cache_tokens: int | None = None):
        self.max_concurrent = max_concurrent
        self.cache_tokens = cache_tokens
        self._model: CausalLM | None = None
        self._version = 0
        self._awake = 0
        self._decoder: Decoder | None = None

    def load(self, model: CausalLM, version: int) -> None:
        """Sample from `model` from now on. Costs nothing: weights are read where they are."""
        self._model, self._version = model, version
        self._drop_decoder()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Rollout]:
        """Yield each rollout as it finishes. Raises UserError first, where a prompt leaves no room to answer."""
        model = self._model
        assert model is not None, "generate before load"
        for request in requests:
            check_prompt(request.prompt, model)
        rows = [
            Row(request.prompt, number, min(sampling.max_tokens, model.context_length - len(request.prompt.tokens)))
            for request in requests
            for number in request.samples
        ]
        if not rows:
            return
        slot_tokens = round_up(max(len(row.prompt.tokens) + row.max_tokens for row in rows), TOKEN_STEP)
        num_slots = self._num_slots(slot_tokens, len(rows))
        if not is_supported(model):
            yield from generate_any(model, rows, sampling, self._version, num_slots)
            return
        with self.awake():
            while rows:
                decoder = self._ready_decoder(model, num_slots, slot_tokens)
                session = _Session(decoder, model, sampling, self._version)
                try:
                    yield from session.run(rows)
                except torch.OutOfMemoryError as error:
                    num_slots = _fewer(decoder.cache.num_slots, slot_tokens, model, error)
                    self._drop_decoder()
                rows = session.unfinished

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Keep the cache and the packed weights between calls of `generate` inside the block; free them at its end."""
        self._awake += 1
        try:
            yield
        finally:
            self._awake -= 1
            if not self._awake:
                self._drop_decoder()

    @property
    def cache_slots(self) -> int:
        """Sequences that the cache now in memory holds; 0 while asleep."""
        return 0 if self._decoder is None else self._decoder.cache.num_slots

    def close(self) -> None:
        """Let go of the model and of all memory."""
        self._model = None
        self._drop_decoder()

    def _drop_decoder(self) -> None:
        if self._decoder is not None:
            self._decoder.release()
            self._decoder = None

    def _ready_decoder(self, model: CausalLM, num_slots: int, slot_tokens: int) -> Decoder:
        ready = self._decoder
        if ready is not None and ready.cache.num_slots >= num_slots and ready.cache.slot_tokens >= slot_tokens:
            return ready
        self._drop_decoder()
        self._decoder = _build_decoder(model, num_slots, slot_tokens)
        return self._decoder

    def _num_slots(self, slot_tokens: int, num_rows: int) -> int:
        """As many slots as rows and the two limits allow.

        Two at least where the cache has room: products of a single row round differently, and samples shall not.
        """
        wanted = max(2, min(self.max_concurrent, num_rows))
        if self.cache_tokens is None:
            return wanted
        if self.cache_tokens < slot_tokens:
            raise UserError(
                f"rollout.cache_tokens: {self.cache_tokens} tokens can't hold one sequence of up to {slot_tokens} "
                f"tokens (prompt + completion, in steps of {TOKEN_STEP}); set it to {slot_tokens} or more, or lower "
                "max_completion_length"
            )
        return min(wanted, self.cache_tokens // slot_tokens)


def check_prompt(prompt: Prompt, model: CausalLM) -> None:
    """Raise UserError for a prompt that the model can't continue."""
    if not prompt.tokens:
        raise UserError(f"prompt of problem `{prompt.problem_id}` is empty: it must hold at least one token")
    if len(prompt.tokens) >= model.context_length:
        raise UserError(
            f"prompt of problem `{prompt.problem_id}` has {len(prompt.tokens)} tokens and `{model.name}` reads "
            f"{model.context_length}: no room to answer; lower prompt.max_prompt_length or drop the problem"
        )


def _build_decoder(model: CausalLM, num_slots: int, slot_tokens: int) -> Decoder:
    """A decoder with its cache; with fewer slots where the memory does not suffice."""
    while True:
        try:
            with torch.inference_mode():
                return Decoder(model, num_slots, slot_tokens)
        except (torch.OutOfMemoryError, MemoryError) as error:
            num_slots = _fewer(num_slots, slot_tokens, model, error)


def _fewer(num_slots: int, slot_tokens: int, model: CausalLM, error: BaseException) -> int:
    """Half the slots; raises UserError where one was too many already."""
    if num_slots == 1:
        raise UserError(
            f"out of memory: one sequence of {slot_tokens} tokens does not fit on {model.device}; lower "
            "max_completion_length"
        ) from error
    logger.warning("out of memory with %d slots of %d tokens: trying %d", num_slots, slot_tokens, num_slots // 2)
    return num_slots // 2


class _Session:
    """One call of `generate`: which row sits in which slot, and what it has sampled so far."""

    def __init__(self, decoder: Decoder, model: CausalLM, sampling: Sampling, version: int):
        num_slots, device = decoder.cache.num_slots, model.device
        self.decoder, self.model, self.sampling, self.version = decoder, model, sampling, version
        self.waiting: deque[Row] = deque()
        self.rows: list[Row] = []  # row i sits in slot i
        self.starts: list[int] = []  # its position less `num_steps`, so that positions are known without the device
        self.num_steps = 0
        self.num_slots = num_slots
        with torch.inference_mode():
            self.token = torch.zeros(num_slots, dtype=torch.int64, device=device)
            self.position = torch.zeros_like(self.token)
            self.key = torch.zeros_like(self.token)
            self.num_sampled = torch.zeros_like(self.token)
            self.limit = torch.zeros_like(self.token)
            self.tokens = torch.zeros((num_slots, sampling.max_tokens), dtype=torch.int64, device=device)  # [S, C]
            self.logprobs = torch.zeros((num_slots, sampling.max_tokens), device=device)  # [S, C]
            self.is_stop = torch.zeros(decoder.embedding.shape[0], dtype=torch.bool, device=device)
            self.is_stop[[token for token in model.stop_ids if token < self.is_stop.shape[0]]] = True

    @property
    def unfinished(self) -> list[Row]:
        """Rows that have not been yielded; their noise does not depend on when they are sampled."""
        return [*self.rows, *self.waiting]

    def run(self, rows: Sequence[Row]) -> Iterator[Rollout]:
        """Yield a rollout for each row as it finishes."""
        self.waiting.extend(rows)
        prefix: tuple[Prompt, torch.Tensor] | None = None
        while self.waiting or self.rows:
            with torch.inference_mode():
                while self.waiting and len(self.rows) < self.num_slots:
                    row = self.waiting[0]
                    if prefix is None or prefix[0] is not row.prompt:
                        prefix = (row.prompt, self._prefill(row.prompt))
                    self._admit(self.waiting.popleft(), prefix[1])
                finished = self._step()
                rollouts = [self._rollout(slot) for slot in finished]
                self._leave(finished)
            yield from rollouts

    @property
    def _state(self) -> tuple[torch.Tensor, ...]:
        """All that is kept a slot, beside the cache."""
        return self.token, self.position, self.key, self.num_sampled, self.limit, self.tokens, self.logprobs

    def _prefill(self, prompt: Prompt) -> torch.Tensor:
        """Keys and values of all prompt tokens but the last, which is the first one that `step` reads."""
        tokens = torch.tensor(prompt.tokens[:-1], dtype=torch.int64, device=self.model.device)
        return self.decoder.prefill(tokens)

    def _admit(self, row: Row, prefix: torch.Tensor) -> None:
        slot = len(self.rows)
        position = len(row.prompt.tokens) - 1
        self.rows.append(row)
        self.starts.append(position - self.num_steps)
        self.decoder.cache.fill(slot, prefix)
        self.token[slot] = row.prompt.tokens[-1]
        self.position[slot] = position
        self.key[slot] = row_key(self.sampling, row.prompt.problem_id, row.sample)
        self.num_sampled[slot] = 0
        self.limit[slot] = row.max_tokens

    def _step(self) -> list[int]:
        """Sample one token in every row; return the slots that finished. Only the last line waits for the device."""
        active = len(self.rows)
        padded = self.decoder.padded_rows(active)
        length = max(self.starts) + self.num_steps + 1
        self.position[active:padded] = 0
        logits = self.decoder.step(self.token[:padded], self.position[:padded], length)
        tokens, logprobs = sample(logits, self.key[:padded], self.num_sampled[:padded], self.sampling)
        column = self.num_sampled[:padded, None].clamp(max=self.sampling.max_tokens - 1)
        self.tokens[:padded].scatter_(1, column, tokens[:, None])
        self.logprobs[:padded].scatter_(1, column, logprobs[:, None])
        self.token[:padded] = tokens
        self.position += 1
        self.num_sampled += 1
        self.num_steps += 1
        finished = self.is_stop[tokens] | (self.num_sampled[:padded] >= self.limit[:padded])
        return [slot for slot, done in enumerate(finished[:active].tolist()) if done]

    def _rollout(self, slot: int) -> Rollout:
        row, count = self.rows[slot], int(self.num_sampled[slot])
        tokens, logprobs = self.tokens[slot, :count].tolist(), self.logprobs[slot, :count].tolist()
        return to_rollout(self.model, row, tokens, logprobs, self.version)

    def _leave(self, finished: Sequence[int]) -> None:
        """Drop finished rows, from the last to the first, each time moving the last row into the hole."""
        for slot in reversed(finished):
            last = len(self.rows) - 1
            if slot != last:
                self.decoder.cache.move(last, slot, self.starts[last] + self.num_steps)
                for state in self._state:
                    state[slot] = state[last]
                self.rows[slot], self.starts[slot] = self.rows[last], self.starts[last]
            self.rows.pop()
            self.starts.pop()
