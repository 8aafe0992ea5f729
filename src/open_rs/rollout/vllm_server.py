"""Sampling from a running `vllm serve`, with weights handed over through a directory that both sides see.

Start it with `VLLM_SERVER_DEV_MODE=1` (its weight routes exist only then) and `--logprobs-mode processed_logprobs`
(else its log-probabilities are those at temperature 1). Facts of vLLM 0.32 that shape this file: a reload that leaves a
tied output head stale ends without an error, so the head is written by name; it keeps the prefix cache; and it brings
the server down when the directory is not there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from open_rs.config.schema import RolloutConfig
from open_rs.models import CausalLM
from open_rs.rollout import probe
from open_rs.rollout.endpoint import Answer, EndpointEngine, Served, explain, find_model, read_completion, sample_seed
from open_rs.rollout.endpoint import sampling_fields as endpoint_fields
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.general import Row, to_rollout
from open_rs.rollout.http_client import FIRST_DELAY_SECONDS, LostError, Post, RefusedError
from open_rs.rollout.vllm import Scorer, check_requests, score
from open_rs.types import Rollout, UserError

logger = logging.getLogger(__name__)

ROUTES_HINT = "start the server with `VLLM_SERVER_DEV_MODE=1 vllm serve ...`, or its weights can't be changed"


class VllmServerEngine(EndpointEngine):
    """An engine over a `vllm serve` at `vllm.server_url` that follows the policy.

    With `vllm.weight_directory` every `load` writes the weights there and has the server read them. Without it the
    server keeps its own, and the probe must find them equal to the policy's. A rollout's `logprobs` are None where this
    server can't give them at the sampling temperature before truncation (see `gives_logprobs`).
    """

    def __init__(
        self,
        config: RolloutConfig,
        *,
        score_tokens: Scorer = score,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
    ) -> None:
        assert config.vllm.server_url is not None, "no server_url: vLLM runs inside this process"
        self._root = config.vllm.server_url.rstrip("/").removesuffix("/v1")
        changes = {
            "url": f"{self._root}/v1",
            "api": "completions",
            "model": None,
            "max_concurrent": config.max_concurrent,
        }
        endpoint = config.endpoint.model_copy(update=changes)
        super().__init__(config.model_copy(update={"endpoint": endpoint}), first_delay_seconds=first_delay_seconds)
        directory = config.vllm.weight_directory
        self._directory = Path(directory).expanduser().resolve() if directory else None
        self._score_tokens = score_tokens
        self._lm: CausalLM | None = None
        self._reading: probe.Reading | None = None
        self._processed = False

    def load(self, model: CausalLM, version: int) -> None:
        """Hand over the weights, forget what was computed under the old ones, and prove that they arrived."""
        served = self._served or find_model(self.client, None, self.settings.api_key_env, preferred=model.name)
        if not served.is_vllm:
            raise UserError(f"{self._root}: not a vLLM server; for any other one set `rollout.engine: endpoint`")
        if self._directory is not None:
            self._send_weights(model, version)
        elif self._version not in (None, version):
            raise UserError(
                "rollout.vllm.weight_directory: not set, so the server can't follow the policy; name a directory that "
                "this process and the server both see"
            )
        if self._served is None:
            self._served, self._processed = served, self._gives_processed_logprobs(served, model)
        reading = self._read_probe(served, model)
        probe.check(reading, self._reading, str(model.dtype).removeprefix("torch."), version)
        self._lm, self._version, self._reading = model, version, reading

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Rollout]:
        """Yield each rollout as its answer arrives; what has finished is yielded before a lost server is raised."""
        assert self._lm is not None and self._served is not None, "generate before load"
        check_requests(requests, sampling, self._lm, self._served.max_model_len or self._lm.context_length)
        if not gives_logprobs(sampling, self._processed):
            logger.warning("no log-probabilities from this server: %s", LOGPROBS_HINT)
        yield from super().generate(requests, sampling)

    def _post(self, served: Served, request: Request, sample: int, sampling: Sampling) -> Post[Answer]:
        assert self._lm is not None
        fields = {
            **endpoint_fields(sampling),
            "stop_token_ids": sorted(self._lm.stop_ids),
            "seed": sample_seed(sampling, request.prompt.problem_id, sample),
        }
        return completion(served, request.prompt.tokens, fields)

    def _rollout(self, request: Request, sample: int, sampling: Sampling, answer: Answer) -> Rollout:
        assert self._lm is not None
        row = Row(request.prompt, sample, sampling.max_tokens)
        rollout = to_rollout(self._lm, row, list(answer.tokens), list(answer.logprobs or ()), self._version or 0)
        return rollout if gives_logprobs(sampling, self._processed) else replace(rollout, logprobs=None)

    def _send_weights(self, model: CausalLM, version: int) -> None:
        assert self._directory is not None
        directory = self._directory / f"version-{version}"
        write_weights(model, directory)
        self._call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(directory)}})
        shutil.rmtree(directory)
        answer = self._call("/reset_prefix_cache", {})
        if not answer["success"]:
            raise UserError(f"{self._root}: the server is busy with other requests; a training run needs it alone")

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return self.client.call("POST", path, body, base=self._root)
        except RefusedError as error:
            raise UserError(f"{self._root}: no weight routes ({error}); {ROUTES_HINT}") from error
        except LostError as error:
            raise UserError(
                f"{self._root}: the server did not take the weights ({error}); check that it sees {self._directory} "
                "under this name, look at its log, and start it again"
            ) from error

    def _read_probe(self, served: Served, model: CausalLM) -> probe.Reading:
        prompt = probe.probe_prompt(model.tokenizer, served.max_model_len or model.context_length)
        answer = self._ask(served, prompt, {"temperature": 0.0, "max_tokens": probe.NUM_GREEDY_TOKENS})
        if answer.token_ids is None or answer.logprobs is None:
            raise UserError(f"{self._root}: the server sends no token ids; open-rs needs vLLM 0.32 or later there")
        return probe.Reading(answer.token_ids, answer.logprobs, self._score_tokens(model, prompt, answer.token_ids))

    def _gives_processed_logprobs(self, served: Served, model: CausalLM) -> bool:
        """Whether the likeliest word's log-probability changes with the temperature, as only processed ones do."""
        prompt = probe.probe_prompt(model.tokenizer, served.max_model_len or model.context_length)
        cold, warm = (self._ask(served, prompt, {**ONE_TOKEN, "temperature": t}).top_logprob for t in (0.0, 2.0))
        return cold != warm

    def _ask(self, served: Served, prompt: tuple[int, ...], fields: dict[str, Any]) -> Answer:
        post = completion(served, prompt, fields)
        try:
            return post.read(self.client.call("POST", post.path, post.body))
        except (RefusedError, LostError) as error:
            raise explain(error, self._root, self.settings.api_key_env) from error


def completion(served: Served, prompt: tuple[int, ...], fields: dict[str, Any]) -> Post[Answer]:
    """A request for token ids and log-probabilities that only the given stop ids end."""
    body = {"model": served.model, "prompt": list(prompt), "logprobs": 0, **fields}
    return Post("/completions", {**body, "return_token_ids": True, "ignore_eos": True}, read_completion)


def gives_logprobs(sampling: Sampling, processed: bool) -> bool:
    """Whether the server's log-probabilities are those of the sampling temperature, before truncation.

    Processed ones are taken after top-p, top-k and min-p have cut, raw ones at temperature 1.
    """
    cuts = sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0
    greedy = sampling.temperature == 0
    return greedy or (not cuts if processed else sampling.temperature == 1)


def write_weights(model: CausalLM, directory: Path) -> None:
    """Write every weight by its Hugging Face name, a tied output head too; the directory appears when it is whole."""
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    for old in (unfinished, directory):
        shutil.rmtree(old, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        tensors = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in model.named_weights()}
        save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
        unfinished.rename(directory)
    except OSError as error:
        raise UserError(f"rollout.vllm.weight_directory: can't write {directory} ({error})") from error


ONE_TOKEN = {"max_tokens": 1, "logprobs": 1, "seed": 0}

LOGPROBS_HINT = (
    "with `--logprobs-mode processed_logprobs` vLLM gives those after top_p, top_k and min_p cut (set them to 1, 0 and "
    "0 to train), without it those at temperature 1 (set temperature 1 to train)"
)
