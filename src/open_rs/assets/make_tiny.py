"""Makes the embedded tiny reasoning model: `python -m open_rs.assets.make_tiny --out DIR --seed 0`.

First it learns to be careful, then to be hurried as often as not (`traces.HURRIED`), on training problems only. What
reinforcement learning finds afterwards is the care, not the sums. The log of the run that made the committed checkpoint
stands beside this file.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from open_rs.assets.tokenizer import CONTEXT_LENGTH, make_tokenizer
from open_rs.assets.traces import CAREFUL, CLOSE, HURRIED, Habits, write_trace
from open_rs.config.schema import ArithmeticConfig
from open_rs.data.arithmetic import Split, generate, one_operand_longer
from open_rs.types import Problem

TASK = ArithmeticConfig(min_operands=2, max_operands=4, max_digits=2, operators="+-", num_problems=40_000)
LONGER_ONE_IN = 8
NOT_TRAINED = -100  # the label that `cross_entropy` ignores
MAX_COMPLETION_TOKENS = 160
BATCHES_SORTED_TOGETHER = 16
LENGTH_STEP = 16  # few different shapes, since the CPU kernels are compiled anew for each


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how fast the model learns: careful traces for `careful_share` of the steps, then hurried ones."""

    num_steps: int = 1300
    traces_per_step: int = 64
    careful_share: float = 0.6
    muon_learning_rate: float = 4e-3
    adam_learning_rate: float = 4e-3
    warmup_steps: int = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares of completions: `right` ones close their reasoning and box the answer, `closed` ones close it."""

    right: float
    closed: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Training().num_steps)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    problems = training_problems(arguments.seed)
    tokenizer = make_tokenizer(corpus(problems, rng))
    model = build_model(len(tokenizer), tokenizer)
    print(f"parameters {sum(weight.numel() for weight in model.parameters())}  vocabulary {len(tokenizer)}", flush=True)
    train(model, tokenizer, problems, Training(num_steps=arguments.steps), rng)
    tokenizer.save_pretrained(arguments.out)
    model.save_pretrained(arguments.out)
    report(model, tokenizer, arguments.seed)


def training_problems(seed: int) -> list[Problem]:
    """The demo's kind, and one in `LONGER_ONE_IN` with an operand more, which the demo never trains on."""
    task = TASK.model_copy(update={"seed": seed})
    longer = generate(one_operand_longer(task), "train", task.num_problems // (LONGER_ONE_IN - 1))
    return generate(task, "train") + longer


def corpus(problems: list[Problem], rng: random.Random) -> Iterator[str]:
    """Text for the tokenizer's merges: words only, since tags, numbers and operators are whole already."""
    for problem in problems[:2000]:
        reasoning = write_trace(problem.meta["expression"], HURRIED, rng).partition("</think>")[0]
        yield f"system\nuser\n{problem.question}\nassistant\n{reasoning}\nAnswer: "


def build_model(vocabulary: int, tokenizer: Any) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=-(-vocabulary // 64) * 64,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def train(
    model: Qwen2ForCausalLM,
    tokenizer: Any,
    problems: list[Problem],
    training: Training,
    rng: random.Random,
) -> None:
    """Next-token prediction on completions, with Muon for matrices and AdamW for the rest, both decaying to nothing."""
    optimizers = build_optimizers(model, training)
    initial = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started = time.perf_counter()
    for step, chosen in enumerate(pick_batches(problems, training, rng)):
        factor = min((step + 1) / training.warmup_steps, 1 - step / training.num_steps)
        for optimizer, rate in zip(optimizers, initial, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        habits = CAREFUL if step < training.careful_share * training.num_steps else HURRIED
        tokens, labels = make_batch(tokenizer, chosen, habits, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]  # [N, T-1, V]
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NOT_TRAINED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == training.num_steps - 1:
            print(f"step {step}  loss {loss.item():.4f}  seconds {time.perf_counter() - started:.0f}", flush=True)


def pick_batches(problems: list[Problem], training: Training, rng: random.Random) -> Iterator[list[Problem]]:
    """As many batches as there are steps, each of questions of like length, so that little is padding."""
    size = training.traces_per_step
    for begin in range(0, training.num_steps, BATCHES_SORTED_TOGETHER):
        pool = sorted(rng.sample(problems, size * BATCHES_SORTED_TOGETHER), key=lambda problem: len(problem.question))
        batches = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches[: training.num_steps - begin]


def build_optimizers(model: Qwen2ForCausalLM, training: Training) -> list[torch.optim.Optimizer]:
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim == 1 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=training.muon_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=training.adam_learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def make_batch(tokenizer: Any, problems: list[Problem], habits: Habits, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Right-padded tokens and labels [N, T]; only the completion and its stop token are labelled."""
    prompts = tokenizer([to_prompt(tokenizer, problem) for problem in problems])["input_ids"]
    texts = [write_trace(problem.meta["expression"], habits, rng) for problem in problems]
    completions = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    longest = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP
    tokens = torch.full((len(problems), length), tokenizer.pad_token_id)
    labels = torch.full((len(problems), length), NOT_TRAINED)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        tokens[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return tokens, labels


def to_prompt(tokenizer: Any, problem: Problem) -> str:
    message = {"role": "user", "content": problem.question}
    return str(tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))


def report(model: Qwen2ForCausalLM, tokenizer: Any, seed: int) -> None:
    """Print how the model does: on training problems, on held-out ones, and on ones longer than it ever saw."""
    sets: dict[str, tuple[ArithmeticConfig, Split]] = {
        "train": (TASK, "train"),
        "held out": (TASK, "held_out"),
        "longer": (one_operand_longer(TASK), "held_out"),
    }
    for name, (task, split) in sets.items():
        problems = generate(task.model_copy(update={"seed": seed + 1}), split, 500)
        for temperature in (1.0, 0.0):
            measured = measure(model, tokenizer, problems, temperature)
            print(f"{name}  temperature {temperature}  {measured}", flush=True)


def measure(model: Qwen2ForCausalLM, tokenizer: Any, problems: list[Problem], temperature: float) -> Measured:
    texts = sample(model, tokenizer, problems, temperature)
    closed = [text.count(CLOSE) == 1 for text in texts]
    boxed = [text.endswith(f"\\boxed{{{problem.answer}}}") for text, problem in zip(texts, problems, strict=True)]
    both = [c and b for c, b in zip(closed, boxed, strict=True)]
    return Measured(sum(both) / len(problems), sum(closed) / len(problems))


@torch.no_grad()
def sample(model: Any, tokenizer: Any, problems: list[Problem], temperature: float) -> list[str]:
    """One completion a problem; temperature 0 is greedy."""
    prompts = [to_prompt(tokenizer, problem) for problem in problems]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    tokens = model.generate(**inputs, max_new_tokens=MAX_COMPLETION_TOKENS, **how)
    return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


if __name__ == "__main__":
    main()
