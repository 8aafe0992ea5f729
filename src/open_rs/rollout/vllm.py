"""Sampling with vLLM inside this process: weights are handed over in memory, and every hand-over is proved.

vLLM is built with random weights from the model's configuration alone; the policy's weights reach it one way only,
through `load`, and the probe shows that they arrived. Facts of vLLM 0.32 that shape this file: a reload leaves a tied
output head stale unless `lm_head.weight` is sent by name (`CausalLM.named_weights` does), it keeps keys and values of
the old weights, and log-probabilities are those at temperature 1 whatever the temperature was.
"""

from __future__ import annotations

import copy
import gc
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from open_rs.config.schema import RolloutConfig
from open_rs.models import CausalLM
from open_rs.rollout import probe
from open_rs.rollout.endpoint import sample_seed
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.general import Row, to_rollout
from open_rs.rollout.local import check_prompt
from open_rs.types import Rollout, UserError

MINIMUM_VERSION = (0, 32)
INSTALL = (
    "install it with `pip install 'vllm>=0.32'` (without a GPU: `scripts/make_vllm_env.sh DIRECTORY`), or set "
    "`rollout.engine: local`"
)
MAX_TEMPERATURE = 2.0
PROMPT_ROOM_TOKENS = 2048  # beside the longest completion, where `max_model_len` is not set

Scorer = Callable[[CausalLM, tuple[int, ...], tuple[int, ...]], tuple[float, ...]]


class VllmEngine:
    """One vLLM engine in this process, on the policy's device.

    `score_tokens(model, prompt, tokens)` is how the learner computes log-probabilities; a learner whose weights are
    spread over processes passes its own. Raises UserError where vLLM is missing or too old, where its cache can't hold
    one sequence, and (StaleWeightsError) where it does not sample from the policy it was given.
    """

    def __init__(self, config: RolloutConfig, *, score_tokens: Scorer | None = None) -> None:
        vllm_module()
        self._config = config
        self._score_tokens = score_tokens or score
        self._llm: Any = None
        self._model: CausalLM | None = None
        self._reading: probe.Reading | None = None
        self._version = 0
        self._made_group = False
        self._num_awake = 0
        self._num_calls = 0

    def load(self, model: CausalLM, version: int) -> None:
        """Hand over the weights of `model` and prove that they arrived; the first call builds the engine."""
        if self._llm is None:
            self._made_group = not torch.distributed.is_initialized()
            self._llm = build(model, self._config)
            self._sleep()
        with self.awake():
            send_weights(self._llm, model, self._config.vllm.tensor_parallel_size)
            reading = self._read_probe(model)
        probe.check(reading, self._reading, str(model.dtype).removeprefix("torch."), version)
        self._model, self._version, self._reading = model, version, reading

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Rollout]:
        """Yield each rollout as it finishes; vLLM batches all samples. Closing the iterator early aborts the others."""
        model = self._model
        assert model is not None, "generate before load"
        check_requests(requests, sampling, model, self._max_model_len)
        wanted = {
            f"{self._num_calls}-{index}-{sample}": Row(request.prompt, sample, sampling.max_tokens)
            for index, request in enumerate(requests)
            for sample in request.samples
        }
        self._num_calls += 1
        with self.awake():
            try:
                for name, row in wanted.items():
                    prompt = {"prompt_token_ids": list(row.prompt.tokens)}
                    self._llm.llm_engine.add_request(name, prompt, sampling_params(sampling, model, row))
                yield from self._finished(wanted, model)
            finally:
                self._llm.llm_engine.abort_request(list(wanted))

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Hold weights and cache on the GPU; outside, the weights wait in the computer's memory. On a CPU: nothing."""
        if self._num_awake == 0 and self._llm is not None and self._can_sleep:
            self._llm.wake_up()
        self._num_awake += 1
        try:
            yield
        finally:
            self._num_awake -= 1
            self._sleep()

    def close(self) -> None:
        """Free the engine and its memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._model = self._reading = None
        gc.collect()
        if self._made_group and torch.distributed.is_initialized():
            vllm_module("vllm.distributed").cleanup_dist_env_and_memory()

    @property
    def _max_model_len(self) -> int:
        return self._llm.llm_engine.model_config.max_model_len

    @property
    def _can_sleep(self) -> bool:
        return self._llm.llm_engine.model_config.enable_sleep_mode

    def _sleep(self) -> None:
        if self._num_awake == 0 and self._llm is not None and self._can_sleep:
            self._llm.sleep(level=1)

    def _finished(self, wanted: dict[str, Row], model: CausalLM) -> Iterator[Rollout]:
        while wanted:
            for output in self._llm.llm_engine.step():
                row = wanted.pop(output.request_id, None)
                if row is not None:
                    completion = output.outputs[0]
                    logprobs = list(chosen_logprobs(completion))
                    yield to_rollout(model, row, list(completion.token_ids), logprobs, self._version)

    def _read_probe(self, model: CausalLM) -> probe.Reading:
        """Greedy tokens of the probe prompt with both sides' log-probabilities."""
        prompt = probe.probe_prompt(model.tokenizer, self._max_model_len)
        params = vllm_module().SamplingParams(
            temperature=0.0, max_tokens=probe.NUM_GREEDY_TOKENS, logprobs=0, ignore_eos=True, detokenize=False
        )
        (output,) = self._llm.generate({"prompt_token_ids": list(prompt)}, params, use_tqdm=False)
        assert not output.num_cached_tokens, "keys and values of the old weights are still in the cache"
        tokens = tuple(output.outputs[0].token_ids)
        return probe.Reading(tokens, chosen_logprobs(output.outputs[0]), self._score_tokens(model, prompt, tokens))


def vllm_module(name: str = "vllm") -> Any:
    """A module of vLLM, in one process and quiet. Raises UserError with the install command if it can't be had."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        version: str = import_module("vllm").__version__
    except (ImportError, AttributeError) as error:
        raise UserError(f"rollout.engine: vLLM can't be imported ({error}); {INSTALL}") from error
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < MINIMUM_VERSION:
        raise UserError(f"rollout.engine: vLLM {version} is not supported; {INSTALL}")
    return import_module(name)


def build(model: CausalLM, config: RolloutConfig) -> Any:
    """A `vllm.LLM` of the model's shape with random weights. Raises UserError where it does not fit the memory."""
    settings = config.vllm
    with tempfile.TemporaryDirectory(prefix="open-rs-vllm-") as directory, undisturbed():
        shape = copy.deepcopy(model.base.config)
        shape.architectures = [type(model.base).__name__]
        shape.save_pretrained(directory)
        try:
            llm = vllm_module().LLM(
                model=directory,
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=longest_sequence(model, config),
                tensor_parallel_size=settings.tensor_parallel_size,
                distributed_executor_backend=executor_backend(),
                gpu_memory_utilization=settings.gpu_memory_utilization,
                kv_cache_memory_bytes=cache_bytes(model, config),
                enforce_eager=settings.enforce_eager or model.device.type == "cpu",
                enable_sleep_mode=settings.sleep and model.device.type == "cuda",
                logprobs_mode="raw_logprobs",
                disable_log_stats=True,
            )
        except (ValueError, torch.OutOfMemoryError) as error:
            raise UserError(
                f"rollout.vllm: vLLM can't be built for `{model.name}`: {first_sentences(error)}"
            ) from error
        llm.collective_rpc(install_sampler)
    return llm


def executor_backend() -> str | None:
    """Under a launcher with several processes each builds its own engine inside the group that exists."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return "external_launcher" if distributed and torch.distributed.get_world_size() > 1 else None


def cache_bytes(model: CausalLM, config: RolloutConfig) -> int | None:
    """Bytes for keys and values: `rollout.cache_tokens`, or room for `max_concurrent` full sequences on a CPU.

    None on a GPU without `cache_tokens`: there `gpu_memory_utilization` decides.
    """
    tokens, longest = config.cache_tokens, longest_sequence(model, config)
    if tokens is None and model.device.type != "cpu":
        return None
    if tokens is not None and tokens < longest:
        raise UserError(
            f"rollout.cache_tokens: {tokens} tokens can't hold one sequence of up to {longest} tokens; set it to "
            f"{longest} or more, or lower rollout.vllm.max_model_len"
        )
    shape = model.base.config
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    bytes_per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * head_size * model.dtype.itemsize
    return bytes_per_token * (tokens or config.max_concurrent * longest)


def longest_sequence(model: CausalLM, config: RolloutConfig) -> int:
    """Tokens of prompt and completion that vLLM makes room for."""
    wanted = config.vllm.max_model_len or config.max_completion_length + PROMPT_ROOM_TOKENS
    return min(wanted, model.context_length)


def install_sampler(worker: Any) -> None:
    """Make the worker give log-probabilities at the sampling temperature, before top-p, top-k and min-p cut.

    vLLM has raw (temperature 1) and processed (after the cuts) ones; what a rollout promises is between the two. So the
    temperature is applied first, and what is raw to vLLM's sampler is then what we promise.
    """
    sampler_class: Any = vllm_module("vllm.v1.sample.sampler").Sampler

    class TemperedSampler(sampler_class):
        def forward(self, logits: Any, sampling_metadata: Any, *rest: Any, **named: Any) -> Any:
            given = sampling_metadata.temperature  # [N]; None where every row is greedy
            if given is not None:
                applied = torch.where(given < 1e-5, 1.0, given)  # vLLM's bound for greedy
                logits = logits.float() / applied[:, None]
                sampling_metadata = replace(sampling_metadata, temperature=given / applied)
            return super().forward(logits, sampling_metadata, *rest, **named)

    runner = worker.model_runner
    assert type(runner.sampler) is sampler_class, (
        f"unknown sampler {type(runner.sampler)}; set VLLM_USE_V2_MODEL_RUNNER=0"
    )
    runner.sampler = TemperedSampler("raw_logprobs")


def send_weights(llm: Any, model: CausalLM, num_workers: int) -> None:
    """Replace every weight and forget all cached keys and values. Other processes get copies, this one the tensors."""
    weights = model.named_weights()
    if num_workers > 1:
        weights = [(name, weight.cpu()) for name, weight in weights]
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    assert llm.reset_prefix_cache(), "requests are under way while the weights change"


def sampling_params(sampling: Sampling, model: CausalLM, row: Row) -> Any:
    """vLLM's settings of one sample. Only the model's stop ids end it, and its text is decoded here."""
    names = vllm_module("vllm.sampling_params")
    return names.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sample_seed(sampling, row.prompt.problem_id, row.sample),
        max_tokens=row.max_tokens,
        stop_token_ids=sorted(model.stop_ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        output_kind=names.RequestOutputKind.FINAL_ONLY,
    )


def check_requests(requests: Sequence[Request], sampling: Sampling, model: CausalLM, room: int) -> None:
    """Raise UserError for what vLLM would refuse or, its own `room` tokens being too few, would cut short."""
    if sampling.temperature > MAX_TEMPERATURE:
        raise UserError(f"rollout.temperature: vLLM takes 0 to {MAX_TEMPERATURE:g}, not {sampling.temperature:g}")
    for prompt in (request.prompt for request in requests):
        check_prompt(prompt, model)
        needed = min(len(prompt.tokens) + sampling.max_tokens, model.context_length)
        if needed > room:
            raise UserError(
                f"rollout.vllm.max_model_len: {room} tokens are too few for the prompt of problem "
                f"`{prompt.problem_id}` ({len(prompt.tokens)}) and a completion of {sampling.max_tokens}; set it to "
                f"{needed} or more"
            )


def chosen_logprobs(completion: Any) -> tuple[float, ...]:
    """Log-probabilities [C] of the tokens that were sampled."""
    return tuple(entry[token].logprob for token, entry in zip(completion.token_ids, completion.logprobs, strict=True))


@torch.no_grad()
def score(model: CausalLM, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> tuple[float, ...]:
    """Log-probabilities [C] of `tokens` after `prompt` by the policy's own module, in one pass without dropout."""
    row = torch.tensor([prompt + tokens], device=model.device)  # [1, P + C]
    was_training = model.module.training
    model.module.eval()
    logits = model.module(row, use_cache=False).logits[0, len(prompt) - 1 : -1]  # [C, V]
    model.module.train(was_training)
    logprobs = logits.float().log_softmax(-1).gather(1, row[0, len(prompt) :, None])  # [C, 1]
    return tuple(logprobs[:, 0].tolist())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep vLLM's construction from reseeding this process and replacing its `torch.set_num_threads`.

    Its warnings (uses of deprecated PyTorch names) are not the caller's to mend.
    """
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(num_threads)
        torch.set_rng_state(torch_state)
        random.setstate(python_state)


def first_sentences(error: Exception) -> str:
    """The start of vLLM's message, on one line."""
    return " ".join(str(error).split())[:600]
