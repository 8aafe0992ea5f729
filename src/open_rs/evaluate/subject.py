"""Who is evaluated: a model by Hub id or directory, a training run, or a server; and the engine that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_rs.config.load import load_recipe
from open_rs.config.schema import EndpointConfig, ModelConfig, Recipe, RolloutConfig
from open_rs.evaluate.benchmarks import ARITHMETIC
from open_rs.evaluate.protocols import PRESETS, PROTOCOLS, Protocol, find_protocol, protocol_of_recipe
from open_rs.rollout import build_engine
from open_rs.rollout.engine import Engine
from open_rs.types import UserError

if TYPE_CHECKING:
    from open_rs.models import CausalLM

EMBEDDED = "open-rs-tiny"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated; `run` and `recipe` are its training run's directory and recipe, where it has one."""

    name: str
    model: ModelConfig
    run: Path | None = None
    recipe: Recipe | None = None

    def default_directory(self, protocol: Protocol, changes: Mapping[str, Any]) -> Path:
        """Where results go unless --out says otherwise; the same command finds them again and goes on.

        `changes` (option -> value) are what was asked otherwise, so that a quick try takes no other's place.
        """
        name = _file_name("-".join([protocol.name, *(f"{option}-{value}" for option, value in changes.items())]))
        if self.run is not None:
            return self.run / "results" / name
        return Path("runs") / "evaluations" / f"{_file_name(self.name)}-{name}"


@dataclass(frozen=True, slots=True)
class Seat:
    """An engine that holds the subject, with its tokenizer and facts for the record.

    `model` is None behind a server; `context_length` in tokens is None where it is unknown.
    """

    engine: Engine
    model: CausalLM | None
    tokenizer: Any
    context_length: int | None
    about: Mapping[str, Any]


class ServerSideTemplate:
    """Stands for a tokenizer that only the server has: messages are sent as they are and nothing is counted here."""

    chat_template = "rendered by the server"

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **_: Any) -> str:
        return "\n\n".join(message["content"] for message in messages)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": []}


def find_subject(text: str, dtype: str = "auto", device: str = "auto", revision: str = "main") -> Subject:
    """A run's directory (its trained model is meant), a model's directory, a Hub id, or `open-rs-tiny`."""
    place = Path(text)
    if (place / "recipe.yaml").is_file():
        recipe = load_recipe(place / "recipe.yaml")
        if not (place / "model").is_dir():
            raise UserError(f"{text}: the run has no trained model yet; let it end, or go on with --checkpoints all")
        model = ModelConfig(name_or_path=str(place / "model"), dtype=dtype, device=device)  # pyright: ignore
        return Subject(f"{recipe.name} ({place})", model, place, recipe)
    model = ModelConfig(name_or_path=text, dtype=dtype, device=device, revision=revision)  # pyright: ignore
    return Subject(text, model)


def open_run(text: str, dtype: str = "auto", device: str = "auto") -> tuple[Subject, Path]:
    """A training run as its recipe built the model, so that any of its checkpoints can be put into it."""
    place = Path(text)
    if not (place / "recipe.yaml").is_file():
        raise UserError(f"{text}: no run here (no recipe.yaml); --checkpoints needs a run that `open-rs train` wrote")
    recipe = load_recipe(place / "recipe.yaml")
    changes = {name: value for name, value in (("dtype", dtype), ("device", device)) if value != "auto"}
    return Subject(place.name, recipe.model.model_copy(update=changes), place, recipe), place


def choose_protocol(subject: Subject, name: str | None, benchmarks: Sequence[str]) -> Protocol:
    """The named protocol, else a run's own, the plain question for the arithmetic task, the paper's otherwise."""
    if name is not None:
        return find_protocol(name)
    if subject.recipe is not None:
        return protocol_of_recipe(subject.recipe)
    return PROTOCOLS["plain" if set(benchmarks) == {ARITHMETIC} else "open-rs"]


def choose_benchmarks(subject: Subject, names: Sequence[str], preset: str | None) -> tuple[str, ...]:
    """The named benchmarks, else the preset's, else the task that the subject was made for, else the paper's five."""
    if names:
        return tuple(names)
    if preset is not None:
        return PRESETS[preset].benchmarks
    trained_on = subject.recipe.data.name if subject.recipe is not None else None
    if subject.name == EMBEDDED or trained_on == ARITHMETIC:
        return (ARITHMETIC,)
    return PRESETS["standard"].benchmarks


@contextmanager
def seat(subject: Subject, engine: str, endpoint: EndpointConfig, max_concurrent: int) -> Iterator[Seat]:
    """Load the subject into an engine of that name, and free it afterwards."""
    config = RolloutConfig(engine=engine, endpoint=endpoint, max_concurrent=max_concurrent)  # pyright: ignore
    opened = build_engine(config)
    try:
        yield _server_seat(subject, opened, endpoint) if engine == "endpoint" else _model_seat(subject, opened, engine)
    finally:
        opened.close()


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")


def _model_seat(subject: Subject, engine: Engine, name: str) -> Seat:
    from open_rs.models import load_model  # late, so that a wrong benchmark name is answered before torch has loaded

    model = load_model(subject.model)
    engine.load(model, version=0)
    about = {"engine": name, "dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
    return Seat(engine, model, model.tokenizer, model.context_length, about)


def _server_seat(subject: Subject, engine: Engine, endpoint: EndpointConfig) -> Seat:
    """Behind `chat` only the server knows how long a prompt is, so nothing is fitted into its context here."""
    from open_rs.models import load_tokenizer
    from open_rs.rollout.endpoint import EndpointEngine

    assert isinstance(engine, EndpointEngine), "the only engine whose model is elsewhere"
    engine.load(None, version=0)
    about = {"engine": "endpoint", "api": endpoint.api}
    if endpoint.api == "chat":
        return Seat(engine, None, ServerSideTemplate(), None, about)
    return Seat(engine, None, load_tokenizer(subject.model), engine.served().max_model_len, about)
