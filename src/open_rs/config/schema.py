"""Every knob of a recipe, with its default and its limits. Defaults stand here and nowhere else.

Field names follow TRL's `GRPOConfig` and `transformers.TrainingArguments` where those have a name for the same thing.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = float  # in [0, 1]; bounds are stated on each field


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class LoraConfig(Section):
    """Low-rank adapters through PEFT; the base stays frozen and doubles as the KL reference."""

    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    use_rslora: bool = False
    seed: int = Field(default=0, ge=0, description="of the adapter's first weights, so that a run can be repeated")


class ModelConfig(Section):
    """Which causal language model, from the Hub or a directory, and how it is held in memory."""

    name_or_path: str = Field(
        default="open-rs-tiny", description="Hub id, local directory, or `open-rs-tiny` (the embedded model)"
    )
    revision: str = "main"
    chat_template: str | None = Field(default=None, description="Jinja text in place of the tokenizer's own template")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    lora: LoraConfig | None = None


class ArithmeticConfig(Section):
    """Difficulty of the generated arithmetic task (`data.name: arithmetic`)."""

    min_operands: int = Field(default=2, ge=2, le=12)
    max_operands: int = Field(default=4, ge=2, le=12)
    max_digits: int = Field(default=2, ge=1, le=6)
    operators: str = Field(default="+-", description="any of + - *")
    num_problems: int = Field(default=4096, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> Self:
        if self.min_operands > self.max_operands:
            raise ValueError(f"min_operands: {self.min_operands} exceeds max_operands: {self.max_operands}; lower one")
        return self


class DataConfig(Section):
    """Where training problems come from, which columns to read, and which rows to leave out."""

    name: str | None = Field(default=None, description="a source of `open-rs sources`, or a Hub data set id")
    path: str | None = Field(
        default=None, description="local .json, .jsonl, .jsonl.gz, .parquet, or a curated directory"
    )
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    question_field: str | None = Field(default=None, description="guessed from the usual names when absent")
    answer_field: str | None = Field(default=None, description="guessed from the usual names when absent")
    limit: int | None = Field(default=None, ge=1)
    shuffle: bool = True
    arithmetic: ArithmeticConfig = ArithmeticConfig()
    allow_contaminated: bool = Field(
        default=False, description="train although the set's manifest shows overlap with a benchmark"
    )


class PromptConfig(Section):
    """What the model reads before it writes."""

    system: str | None = None
    user_template: str = Field(
        default="{question}", description="`{question}` is replaced; other braces reach the model as they are"
    )
    max_prompt_length: int = Field(default=512, ge=1, description="tokens; longer problems are dropped and counted")

    @model_validator(mode="after")
    def _has_place_for_the_question(self) -> Self:
        if "{question}" not in self.user_template:
            raise ValueError("user_template: no `{question}` in it, so the model would never see the problem")
        return self


class VllmConfig(Section):
    """vLLM, inside this process (`server_url: null`) or behind a running `vllm serve`."""

    server_url: str | None = None
    gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    enforce_eager: bool = False
    max_model_len: int | None = Field(default=None, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    sleep: bool = True
    weight_directory: str | None = Field(
        default=None, description="a directory that this process and the server both see"
    )


class EndpointConfig(Section):
    """Any OpenAI-compatible server; for evaluation and curation."""

    url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    api: Literal["completions", "chat"] = "completions"
    max_concurrent: int = Field(default=32, ge=1)
    timeout_seconds: float = Field(default=600.0, gt=0)
    max_retries: int = Field(default=6, ge=0)


class RolloutConfig(Section):
    """How completions are sampled."""

    engine: Literal["local", "vllm", "endpoint", "scripted"] = "local"
    num_generations: int = Field(default=8, ge=2, description="samples a problem (G)")
    max_completion_length: int = Field(default=1024, ge=1, description="tokens")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0: off")
    min_p: float = Field(default=0.0, ge=0, le=1)
    max_concurrent: int = Field(default=64, ge=1, description="sequences decoded side by side (local engine)")
    cache_tokens: int | None = Field(
        default=None, ge=1, description="key/value cache in tokens; absent: room for max_concurrent sequences"
    )
    vllm: VllmConfig = VllmConfig()
    endpoint: EndpointConfig = EndpointConfig()


class RewardTermConfig(Section):
    """One reward: a name of the table or `module:function`, its weight, and its parameters."""

    name: str
    weight: float = 1.0
    params: dict[str, Any] = Field(default_factory=dict)


class RewardConfig(Section):
    """The weighted sum that the learner maximises, and the grader behind it."""

    terms: tuple[RewardTermConfig, ...] = (
        RewardTermConfig(name="format"),
        RewardTermConfig(name="accuracy", weight=2.0),
    )
    grader_workers: int = Field(default=2, ge=1)
    grader_timeout_seconds: float = Field(default=5.0, gt=0)
    allow_constant_reward: bool = False


class AlgorithmConfig(Section):
    """The policy-gradient objective. `loss_type` fixes how sequences are weighted, and nothing else.

    grpo: mean over a sequence's tokens, then over sequences. dapo: mean over all trained tokens. dr_grpo: sum over
    tokens divided by `N * max_completion_length`. release: mean over a group's tokens, then over groups, as the paper's
    code did.
    """

    loss_type: Literal["grpo", "dapo", "dr_grpo", "release"] = "dapo"
    objective: Literal["clip", "cispo"] = "clip"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    epsilon: float = Field(default=0.2, gt=0)
    epsilon_high: float | None = Field(default=None, gt=0, description="absent: equal to epsilon")
    delta: float | None = Field(
        default=None, gt=1, description="upper bound of the ratio where the advantage is negative"
    )
    scale_rewards: Literal["group", "batch", "none"] = "group"
    leave_one_out: bool = False
    mask_truncated_completions: bool = False
    beta: float = Field(default=0.0, ge=0, description="weight of the KL term (k3) against the starting model")
    use_bias_correction_kl: bool = Field(default=False, description="KL term times the ratio: unbiased gradient")
    num_iterations: int = Field(default=1, ge=1, description="passes over one batch of rollouts")
    num_minibatches: int = Field(default=1, ge=1, description="optimiser steps in one pass")
    sampler_correction_cap: float | None = Field(
        default=2.0, gt=1, description="truncation of the sampler/learner weight; absent: none"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delta is not None and self.delta <= 1 + (self.epsilon_high or self.epsilon):
            raise ValueError("delta: must exceed 1 + epsilon_high, or the clip below it never acts")
        if self.objective == "cispo" and (self.epsilon_high or 0) < 1:
            raise ValueError("epsilon_high: under `cispo` it is the greatest ratio itself, as in TRL; give e.g. 5.0")
        return self


class OptimizerConfig(Section):
    """AdamW with fp32 master weights, and its schedule."""

    name: Literal["adamw", "adamw_8bit"] = "adamw"
    learning_rate: float = Field(default=1e-6, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    lr_scheduler_type: str = "cosine_with_min_lr"
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    min_lr_rate: float = Field(default=0.1, ge=0, le=1)


class TrainConfig(Section):
    """The length of the run, its memory settings (which never change the update) and what it saves."""

    max_steps: int = Field(default=500, ge=1)
    num_train_epochs: float | None = Field(
        default=None,
        gt=0,
        description="passes over the training problems; where it is set, it fixes the steps, not max_steps",
    )
    prompts_per_step: int = Field(default=12, ge=1, description="problems a step over all processes (Q)")
    seed: int = Field(default=42, ge=0)
    tokens_per_micro_batch: int = Field(default=16_384, ge=1)
    logprob_chunk_tokens: int = Field(
        default=1024, ge=1, description="rows of hidden states that meet the output head at a time"
    )
    gradient_checkpointing: bool = False
    packing: bool = False
    save_steps: int = Field(default=50, ge=1)
    save_minutes: float = Field(
        default=15.0, gt=0, description="a checkpoint is also written when this much time has passed"
    )
    keep_checkpoints: int = Field(default=2, ge=1)
    save_rollouts: bool = True
    report_to: tuple[str, ...] = Field(default=(), description="trackers of accelerate: wandb, tensorboard, ...")
    selection: Literal["shuffle", "pass_rate"] = "shuffle"


class ValidationConfig(Section):
    """Held-out problems, taken out of the training set before the first step, that show whether the model has learned.

    Every `every_steps` the first `curve_problems` are sampled `curve_samples` times, for the curve. Before the first
    step and after the last, all of them are sampled `samples` times and once greedily, for the proof.
    """

    num_problems: int = Field(default=0, ge=0, description="0: no validation, no proof")
    samples: int = Field(default=8, ge=1, description="samples a problem before and after training")
    every_steps: int = Field(default=50, ge=1)
    curve_problems: int = Field(default=64, ge=1)
    curve_samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)


class GuardConfig(Section):
    """Alarms that stop or roll back a run before it is lost. A limit that is absent is not watched."""

    action: Literal["rollback", "stop", "warn"] = "rollback"
    max_sampler_kl: float | None = Field(
        default=0.1, gt=0, description="KL between sampler and learner on the sampled tokens"
    )
    max_kl: float | None = Field(default=None, gt=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    max_truncated: float | None = Field(default=None, gt=0, le=1)
    accuracy_drop: float | None = Field(
        default=None, gt=0, le=1, description="below the best smoothed training accuracy"
    )
    patience: int = Field(default=5, ge=1, description="steps in a row before an alarm acts")
    max_rollbacks: int = Field(default=3, ge=0)


class BudgetConfig(Section):
    """What may be spent. Any limit that is set binds; steps and schedule are fitted to the tightest."""

    usd: float | None = Field(default=None, gt=0)
    gpu_hour_usd: float | None = Field(default=None, gt=0)
    gpus: int = Field(default=1, ge=1)
    hours: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0, description="sampled tokens")
    stretch: bool = Field(
        default=True, description="more steps than train.max_steps where the budget has room for them"
    )
    reserve_for_evaluation: float = Field(
        default=0.1, ge=0, lt=1, description="share kept for the evaluation at the end"
    )

    @model_validator(mode="after")
    def _dollars_need_a_price(self) -> Self:
        if self.usd is not None and self.gpu_hour_usd is None:
            raise ValueError("usd: dollars need a price; set budget.gpu_hour_usd")
        return self


class Recipe(Section):
    """A complete run. `because` gives the reason for a deviation, keyed by its dotted name."""

    name: str = "unnamed"
    about: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    prompt: PromptConfig = PromptConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    guard: GuardConfig = GuardConfig()
    budget: BudgetConfig = BudgetConfig()
    because: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        room = self.rollout.vllm.max_model_len
        needed = self.prompt.max_prompt_length + self.rollout.max_completion_length
        if self.rollout.engine == "vllm" and room is not None and needed > room:
            raise ValueError(
                f"rollout.vllm.max_model_len: {room} tokens hold no prompt and answer of prompt.max_prompt_length + "
                f"rollout.max_completion_length = {needed}; raise it, or leave it out"
            )
        if self.data.name == "arithmetic" and self.data.path is not None:
            raise ValueError("data.name: `arithmetic` is generated, and data.path names a file; keep one of the two")
        return self
