"""The model that learns: its update by micro-batches, its optimiser, its reference, its processes, its state on disk.

Gradients are summed over ranks once, after the last micro-batch, since the weights of a batch are global already. So
ranks may run different numbers of micro-batches. Sharded training would replace `_sum_gradients` and how the optimiser
stores its parameters; nothing else here knows how many processes there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator, InitProcessGroupKwargs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from open_rs.config.schema import AlgorithmConfig, ModelConfig, OptimizerConfig, TrainConfig
from open_rs.models import CausalLM, load_model
from open_rs.train.batch import Batch
from open_rs.train.grpo import TokenTerms, token_losses
from open_rs.train.head import OutputHead, find_head
from open_rs.train.microbatch import MicroBatch, cut, plan
from open_rs.train.preparation import (
    build_objective,
    build_optimizer,
    build_reference,
    check_division,
    check_temperature,
    prepare_module,
)
from open_rs.train.products import fast_products
from open_rs.train.tally import Tally, summarize
from open_rs.types import UserError

STATE_FILE = "policy.safetensors"
RecordEvent = Callable[[str, Mapping[str, Any]], None]
Result = TypeVar("Result")


class Policy:
    """Working weights with everything that changes them. Engines sample from `model`.

    `record_event(name, facts)` hears of split micro-batches and skipped updates.
    """

    def __init__(
        self,
        model: CausalLM,
        optimizer: OptimizerConfig,
        algorithm: AlgorithmConfig,
        train: TrainConfig,
        *,
        temperature: float,
        record_event: RecordEvent = lambda name, facts: None,
    ) -> None:
        """Prepare a loaded model. Raises UserError where the model and the settings don't go together."""
        self.model = model
        patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # others wait while one process evaluates
        self.accelerator = Accelerator(cpu=model.device.type == "cpu", kwargs_handlers=[patience])
        check_temperature(temperature)
        check_division(train.prompts_per_step, self.accelerator.num_processes)
        self.head = find_head(model.base, temperature, train.logprob_chunk_tokens)
        self.objective = build_objective(algorithm)
        self.num_iterations, self.num_minibatches = algorithm.num_iterations, algorithm.num_minibatches
        self.packing, self.tokens_per_micro_batch = train.packing, train.tokens_per_micro_batch
        self.max_grad_norm = optimizer.max_grad_norm
        self.record_event = record_event
        self.reference = build_reference(model, self.head) if algorithm.beta > 0 else None
        prepare_module(model, train.gradient_checkpointing)
        self._share_weights()
        self.optimizer = build_optimizer(self.trainable(), optimizer)

    @classmethod
    def build(
        cls,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        algorithm: AlgorithmConfig,
        train: TrainConfig,
        *,
        temperature: float,
        record_event: RecordEvent = lambda name, facts: None,
    ) -> Self:
        """Load the model that a recipe names and prepare it."""
        loaded = load_model(model)
        return cls(loaded, optimizer, algorithm, train, temperature=temperature, record_event=record_event)

    def trainable(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """(name, parameter) of everything that an update changes; adapters only, where there are any."""
        return ((name, p) for name, p in self.model.module.named_parameters() if p.requires_grad)

    def update(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """Train on one batch: `num_iterations` passes of `num_minibatches` optimiser steps. Returns what is logged.

        Every rank must call this, also with a batch of no rows. A step whose loss or gradient is not finite leaves the
        weights and the optimiser as they were and counts in `updates_skipped`.
        """
        started = time.perf_counter()
        batch, old = self._with_fixed_logprobs(batch)
        seconds_fixed_logprobs = time.perf_counter() - started
        self.model.module.train()
        steps = [
            self._optimizer_step(batch, range(part, len(batch.lengths), self.num_minibatches), old, learning_rate)
            for _ in range(self.num_iterations)
            for part in range(self.num_minibatches)
        ]
        self.model.module.eval()
        return {
            **batch.counts,
            **summarize(steps),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds_fixed_logprobs": seconds_fixed_logprobs,
            "seconds_optimizer": sum(step["seconds_optimizer"] for step in steps),
        }

    def save_state(self, directory: Path) -> None:
        """Write weights, masters and moments, exactly, to `directory`; only the main process writes."""
        if self.accelerator.is_main_process:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(self._state_tensors(), directory / STATE_FILE)
        self.accelerator.wait_for_everyone()

    def load_state(self, directory: Path) -> None:
        """Go back to what `save_state` wrote. Raises UserError where that was another model or optimiser."""
        place = directory / STATE_FILE
        if not place.is_file():
            raise UserError(f"{directory}: no `{STATE_FILE}` in it; give a checkpoint directory of a run")
        stored, current = _read_state(place), self._state_tensors()
        strange = {name for name, tensor in current.items() if name not in stored or stored[name].shape != tensor.shape}
        if strange or len(stored) != len(current):
            raise UserError(
                f"{place}: holds another model or optimiser than the recipe asks for (first difference: "
                f"`{min(strange | (set(stored) - set(current)))}`); resume with the recipe that wrote it"
            )
        with torch.no_grad():
            for name, tensor in current.items():
                tensor.copy_(stored[name])

    def save_pretrained(self, directory: Path) -> None:
        """Write a model that plain `transformers` loads (adapters merged), and beside it the adapter itself."""
        if not self.accelerator.is_main_process:
            return
        self.model.save_pretrained(directory)
        if self.model.has_adapter:
            self.model.save_adapter(directory / "adapter")

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Sum a small vector over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum").cpu()  # pyright: ignore

    def max_over_ranks(self, values: Tensor) -> Tensor:
        """The greatest of each entry of a small vector over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        gathered = self.accelerator.gather(values.unsqueeze(0).to(self.accelerator.device))
        return gathered.amax(dim=0).cpu()  # pyright: ignore

    # One optimiser step

    def _optimizer_step(self, batch: Batch, rows: range, old: Tensor | None, learning_rate: float) -> dict[str, float]:
        tally = self._retried(batch, rows, lambda plans: self._accumulate(batch, plans, old))
        self._sum_gradients()
        totals = tally.reduce(self.sum_over_ranks, self.max_over_ranks)
        norm = self._clip_gradients()
        started = time.perf_counter()
        finite = math.isfinite(totals["loss"]) and math.isfinite(norm)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self.record_event("update_skipped", {"loss": str(totals["loss"]), "grad_norm": str(norm)})
        seconds = time.perf_counter() - started
        return {**totals, "grad_norm": norm, "skipped": float(not finite), "seconds_optimizer": seconds}

    def _accumulate(self, batch: Batch, plans: list[list[int]], old: Tensor | None) -> Tally:
        tally = Tally(self.model.device)
        for micro in cut(batch, plans, self.packing):
            self._backpropagate(micro, self._terms(micro, batch, old), tally)
        return tally

    def _backpropagate(self, micro: MicroBatch, terms: TokenTerms, tally: Tally) -> None:
        """Add the gradient of one micro-batch."""
        hidden = self._hidden(self.model, micro)  # [M, H], with its graph
        given, targets = hidden.detach(), self._targets(micro)

        def gradient_of(logprobs: Tensor, part: slice) -> Tensor:
            return self._loss_gradient(logprobs, terms.part(part), tally)

        if self.objective.level == "sequence":
            # The ratio of a sequence is known when all its tokens are, so their logits are computed twice.
            whole = gradient_of(self.head.score(given, targets)[0], slice(None))
            _, entropies, slopes = self.head.score_and_backpropagate(given, targets, lambda _, part: whole[part])
        else:
            _, entropies, slopes = self.head.score_and_backpropagate(given, targets, gradient_of)
        tally.add_entropies(entropies)
        hidden.backward(slopes)

    def _loss_gradient(self, logprobs: Tensor, terms: TokenTerms, tally: Tally) -> Tensor:
        """d loss / d logprobs [m]; what the step's log says of these tokens is counted here."""
        with torch.enable_grad():
            leaf = logprobs.detach().requires_grad_()
            losses = token_losses(leaf, terms, self.objective)
            (gradient,) = torch.autograd.grad((losses.loss * terms.weights).sum(), leaf)
        tally.add_losses(losses, logprobs, terms)
        return gradient

    def _terms(self, micro: MicroBatch, batch: Batch, old: Tensor | None) -> TokenTerms:
        rows, columns, device = micro.rows, micro.columns, self.model.device
        _, sequence, counts = rows.unique(return_inverse=True, return_counts=True)
        reference = batch.reference_logprobs
        return TokenTerms(
            advantages=batch.advantages[rows].to(device),
            weights=(batch.weights[rows] * self.num_minibatches).to(device),
            sequence=sequence.to(device),
            sequence_tokens=counts[sequence].float().to(device),
            sampler=batch.sampler_logprobs[rows, columns].to(device),
            old=None if old is None else old[rows, columns].to(device),
            reference=None if reference is None else reference[rows, columns].to(device),
        )

    def _targets(self, micro: MicroBatch) -> Tensor:
        """The trained tokens themselves [M]: each stands one place after its predictor."""
        return micro.input_ids.view(-1)[micro.predictors + 1].to(self.model.device)

    def _hidden(self, model: CausalLM, micro: MicroBatch) -> Tensor:
        """Hidden states [M, H] that predict the trained tokens."""
        positions = None if micro.position_ids is None else micro.position_ids.to(model.device)
        decoder = model.base.base_model
        states = decoder(input_ids=micro.input_ids.to(model.device), position_ids=positions, use_cache=False)
        return states.last_hidden_state.flatten(0, 1).index_select(0, micro.predictors.to(model.device))

    # Log-probabilities that stay fixed during an update

    def _with_fixed_logprobs(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """The batch with its reference, and the learner's own log-probabilities if several optimiser steps follow."""
        several = self.num_iterations * self.num_minibatches > 1
        old = self.logprobs(batch) if several else None
        if self.reference is None or batch.reference_logprobs is not None:
            return batch, old
        model, head, adapters_off = self.reference
        with adapters_off():
            return replace(batch, reference_logprobs=self.logprobs(batch, model, head)), old

    @torch.no_grad()
    def logprobs(self, batch: Batch, model: CausalLM | None = None, head: OutputHead | None = None) -> Tensor:
        """Log-probabilities [N, T] of the trained tokens at the sampling temperature, 0 elsewhere; by the policy itself
        if no other model is given."""
        source, head = model or self.model, head or self.head

        def score(plans: list[list[int]]) -> Tensor:
            found = torch.zeros(batch.tokens.shape)
            for micro in cut(batch, plans, self.packing):
                values, _ = head.score(self._hidden(source, micro), self._targets(micro))
                found[micro.rows, micro.columns] = values.cpu()
            return found

        return self._retried(batch, range(len(batch.lengths)), score)

    # Memory and processes

    def _retried(self, batch: Batch, rows: range, work: Callable[[list[list[int]]], Result]) -> Result:
        """Do `work` on micro-batches; if memory runs out, drop its gradients and start anew with smaller ones.

        Longest rows come first, so memory runs out early or not at all, and little is done twice.
        """
        while True:
            plans = plan(batch.lengths, rows, self.tokens_per_micro_batch, self.packing)
            try:
                with fast_products(self.model.device):
                    return work(plans)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            self._shrink_micro_batches(batch, plans)

    def _shrink_micro_batches(self, batch: Batch, plans: list[list[int]]) -> None:
        longest = int(batch.lengths.max())
        if max(len(rows) for rows in plans) == 1:
            raise UserError(
                f"train.tokens_per_micro_batch: one sequence of {longest} tokens does not fit into memory; set "
                "train.gradient_checkpointing, lower rollout.max_completion_length, or use model.lora or "
                "optimizer.name: adamw_8bit"
            )
        widest = max(sum(int(batch.lengths[row]) for row in rows) for rows in plans)
        self.tokens_per_micro_batch = max(longest, widest // 2)
        self.record_event("out_of_memory", {"tokens_per_micro_batch": self.tokens_per_micro_batch})
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _sum_gradients(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        for _, parameter in self.trainable():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
            torch.distributed.all_reduce(parameter.grad)

    def _share_weights(self) -> None:
        """Every process starts from the main one's trainable weights; fresh adapters are random."""
        if self.accelerator.num_processes > 1:
            for _, parameter in self.trainable():
                torch.distributed.broadcast(parameter.data, src=0)

    def _clip_gradients(self) -> float:
        """Scale all gradients to a joint norm of at most `max_grad_norm`; returns the norm before that."""
        gradients = [p.grad for _, p in self.trainable() if p.grad is not None]
        if not gradients:
            return 0.0
        norm = float(torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm())
        factor = self.max_grad_norm / (norm + 1e-6)
        if factor < 1:
            for gradient in gradients:
                gradient.mul_(factor)
        return norm

    def _state_tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name; live tensors, not copies."""
        tensors = {f"weight/{name}": parameter.data for name, parameter in self.trainable()}
        for name, parameter in self.trainable():
            state = self.optimizer.state_of(parameter)
            tensors.update({f"{kind}/{name}": tensor for kind, tensor in state.items()})
        return tensors


def _read_state(place: Path) -> dict[str, Tensor]:
    try:
        return load_file(place)
    except SafetensorError as error:
        raise UserError(f"{place}: damaged ({error}); resume from an older checkpoint") from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU allocator only a sentence."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
