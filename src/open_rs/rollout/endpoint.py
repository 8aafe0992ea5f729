"""Sampling from any OpenAI-compatible server, for evaluation and curation; the server's weights are its own.

Only the server's tokenizer knows what was sampled. Where the server sends token ids (vLLM does), a rollout holds them;
elsewhere its `tokens` are `UNKNOWN_TOKEN` repeated as often as the server counted. Its `logprobs` are None. Nothing is
tokenised again here.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from open_rs.config.schema import RolloutConfig
from open_rs.prompts import THINK_CLOSE, THINK_OPEN
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.http_client import FIRST_DELAY_SECONDS, HttpClient, LostError, Post, RefusedError
from open_rs.types import Finish, Rollout, UserError

UNKNOWN_TOKEN = -1  # counted by the server, its id never sent


@dataclass(frozen=True, slots=True)
class Served:
    """The model that the server answers with, and whether the server understands vLLM's additions to the protocol."""

    model: str
    is_vllm: bool
    max_model_len: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one completion's JSON held; `token_ids` and `prompt_token_ids` are None where the server sent none."""

    text: str
    finish: Finish
    num_tokens: int
    num_prompt_tokens: int
    token_ids: tuple[int, ...] | None
    prompt_token_ids: tuple[int, ...] | None
    logprobs: tuple[float, ...] | None
    top_logprob: float | None  # of the likeliest first token

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids [C], or as many `UNKNOWN_TOKEN`."""
        return (UNKNOWN_TOKEN,) * self.num_tokens if self.token_ids is None else self.token_ids

    def prompt_tokens(self, sent: tuple[int, ...]) -> tuple[int, ...]:
        """Ids [P]: those that the server read, else those that were sent, else as many `UNKNOWN_TOKEN`."""
        if self.prompt_token_ids is not None:
            return self.prompt_token_ids
        return sent or (UNKNOWN_TOKEN,) * self.num_prompt_tokens


def sample_seed(sampling: Sampling, problem_id: str, sample: int) -> int:
    """31 bits, as some servers keep no more: a function of (seed, step, problem, sample) and of nothing else."""
    key = f"{sampling.seed}\0{sampling.step}\0{problem_id}\0{sample}".encode()
    return int.from_bytes(blake2b(key, digest_size=4).digest(), "big") >> 1


class EndpointEngine:
    """An engine over HTTP. It keeps nothing between calls: ask again for what a broken `generate` left out.

    `endpoint.api` "completions" sends the rendered prompt (token ids where it has them, so that nothing is added);
    "chat" sends the messages and lets the server render them. The key is read from the environment variable
    `endpoint.api_key_env`, if it is set. Raises UserError where the server can't be reached, refuses, or does not hold
    `endpoint.model`.
    """

    def __init__(self, config: RolloutConfig, *, first_delay_seconds: float = FIRST_DELAY_SECONDS) -> None:
        self.settings = config.endpoint
        self.client = HttpClient(
            self.settings.url,
            api_key=os.environ.get(self.settings.api_key_env),
            max_concurrent=self.settings.max_concurrent,
            timeout_seconds=self.settings.timeout_seconds,
            max_retries=self.settings.max_retries,
            first_delay_seconds=first_delay_seconds,
        )
        self._served: Served | None = None
        self._version: int | None = None

    def load(self, model: Any, version: int) -> None:
        """Connect. `model` is ignored: the server samples from its own weights, so a second version is refused."""
        if self._version not in (None, version):
            raise UserError(
                "rollout.engine: `endpoint` samples from the server's own weights and can't follow a training run; "
                "use `local`, or `vllm` with `rollout.vllm.server_url`"
            )
        self._version = version
        self.served()

    def served(self) -> Served:
        """Ask the server once what it serves."""
        if self._served is None:
            self._served = find_model(self.client, self.settings.model, self.settings.api_key_env)
        return self._served

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Rollout]:
        """Yield each rollout as its answer arrives; what has finished is yielded before a lost server is raised."""
        wanted = [(request, sample) for request in requests for sample in request.samples]
        if not wanted:
            return
        served = self.served()
        posts = [self._post(served, request, sample, sampling) for request, sample in wanted]
        num_answered = 0
        try:
            for index, answer in self.client.post_all(posts):
                num_answered += 1
                request, sample = wanted[index]
                yield self._rollout(request, sample, sampling, answer)
        except (RefusedError, LostError) as error:
            raise explain(
                error, self.client.url, self.settings.api_key_env, f"{num_answered} of {len(posts)} samples"
            ) from error

    def awake(self) -> AbstractContextManager[None]:
        """The server's memory is its own."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is held open between calls."""

    def _post(self, served: Served, request: Request, sample: int, sampling: Sampling) -> Post[Answer]:
        path, place_prompt, read = APIS[self.settings.api]
        body = {
            "model": served.model,
            **place_prompt(request),
            **sampling_fields(sampling),
            **(VLLM_FIELDS if served.is_vllm else {}),
            "seed": sample_seed(sampling, request.prompt.problem_id, sample),
        }
        return Post(path, body, read)

    def _rollout(self, request: Request, sample: int, sampling: Sampling, answer: Answer) -> Rollout:
        sent = request.prompt.tokens if self.settings.api == "completions" else ()
        return Rollout(
            problem_id=request.prompt.problem_id,
            sample=sample,
            prompt_tokens=answer.prompt_tokens(sent),
            tokens=answer.tokens,
            logprobs=None,
            text=answer.text,
            finish=answer.finish,
            policy_version=self._version or 0,
        )


def find_model(client: HttpClient, wanted: str | None, api_key_env: str, preferred: str | None = None) -> Served:
    """The model to ask for: `wanted`, or the only one there is, or `preferred`. Raises UserError with a list."""
    try:
        listed = client.call("GET", "/models")
    except RefusedError as error:
        if wanted is not None and error.status in (404, 405):  # some gateways list nothing
            return Served(wanted, is_vllm=False, max_model_len=None)
        raise explain(error, client.url, api_key_env) from error
    except LostError as error:
        raise explain(error, client.url, api_key_env) from error
    entries = {entry["id"]: entry for entry in listed.get("data", [])} if isinstance(listed, dict) else {}
    name = wanted or (next(iter(entries)) if len(entries) == 1 else preferred)
    if name not in entries or name is None:
        asked = f"does not hold `{name}`" if name else "was not told which model to use"
        raise UserError(
            f"{client.url}: the server {asked}; it holds {_name_list(entries)}; set the model's name to one of them"
        )
    entry = entries[name]
    return Served(name, is_vllm=entry.get("owned_by") == "vllm", max_model_len=entry.get("max_model_len"))


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The protocol's names; `top_k` and `min_p` are additions of vLLM and others, so sent only where they act."""
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.top_k > 0:
        fields["top_k"] = sampling.top_k
    if sampling.min_p > 0:
        fields["min_p"] = sampling.min_p
    return fields


def explain(error: RefusedError | LostError, url: str, api_key_env: str, progress: str | None = None) -> UserError:
    """Turn a failed call into what the user should do; `progress` is what had been kept when it failed."""
    kept = f" after {progress}; those are kept, so run it again for the rest" if progress else ""
    if isinstance(error, LostError):
        return UserError(f"{url}: no answer ({error}){kept}; check that the server runs and that the address is right")
    advice = ADVICE.get(error.status, "the server's words say why; check the sampling settings and the prompt's length")
    return UserError(f"{url}: the server refused{kept} ({error}); {advice.format(api_key_env=api_key_env)}")


def read_completion(body: Any) -> Answer:
    """Read one answer of `/completions`."""
    choice = body["choices"][0]
    return _answer(body, choice, choice["text"] or "", choice.get("logprobs") or {})


def read_chat(body: Any) -> Answer:
    """Read one answer of `/chat/completions`; reasoning that the server split off is put back before the answer."""
    choice = body["choices"][0]
    message = choice["message"]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    text = content or ""
    if reasoning:
        text = f"{THINK_OPEN}{reasoning}" if content is None else f"{THINK_OPEN}{reasoning}{THINK_CLOSE}{content}"
    return _answer(body, choice, text, {})


def _answer(body: Any, choice: Mapping[str, Any], text: str, logprobs: Mapping[str, Any]) -> Answer:
    if choice["finish_reason"] in (None, "abort", "error"):
        raise ValueError(f"the server broke off (finish_reason {choice['finish_reason']})")
    usage = body.get("usage") or {}
    chosen, likeliest = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    ids, prompt_ids = choice.get("token_ids"), choice.get("prompt_token_ids") or body.get("prompt_token_ids")
    return Answer(
        text=text,
        finish="length" if choice["finish_reason"] == "length" else "stop",
        num_tokens=usage.get("completion_tokens", 0),
        num_prompt_tokens=usage.get("prompt_tokens", 0),
        token_ids=tuple(ids) if ids else None,
        prompt_token_ids=tuple(prompt_ids) if prompt_ids else None,
        logprobs=tuple(chosen) if chosen else None,
        top_logprob=max(likeliest[0].values()) if likeliest and likeliest[0] else None,
    )


def _completion_prompt(request: Request) -> dict[str, Any]:
    return {"prompt": list(request.prompt.tokens) or request.prompt.text}


def _chat_prompt(request: Request) -> dict[str, Any]:
    return {"messages": [dict(message) for message in request.prompt.messages]}


def _name_list(names: Mapping[str, Any]) -> str:
    shown = ", ".join(f"`{name}`" for name in list(names)[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "no model"


# Special tokens stay in the text, because `<think>` is one in some tokenizers; the stop token does not.
VLLM_FIELDS = {"return_token_ids": True, "skip_special_tokens": False}

ADVICE = {
    401: "set the environment variable `{api_key_env}` to a valid key",
    403: "the key in `{api_key_env}` may not use this model",
    404: "no such route or model there; OpenAI-compatible addresses usually end in `/v1`",
}

# api -> (route, how a request becomes the body's prompt, how the answer is read)
APIS = {
    "completions": ("/completions", _completion_prompt, read_completion),
    "chat": ("/chat/completions", _chat_prompt, read_chat),
}
