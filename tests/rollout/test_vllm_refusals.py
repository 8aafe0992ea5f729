"""What the vLLM engines refuse, told without vLLM: a missing or old package, a wrong server, a failed hand-over."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small_server import SmallServer, Trouble, drop, status

from open_rs.config.schema import RolloutConfig
from open_rs.rollout import Sampling, build_engine
from open_rs.rollout.vllm import VllmEngine
from open_rs.rollout.vllm_server import VllmServerEngine, gives_logprobs, write_weights
from open_rs.types import UserError
from rollout.contract import tiny_model


def module_of_version(version: str) -> ModuleType:
    module = ModuleType("vllm")
    module.__dict__["__version__"] = version
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, r"can't be imported .*pip install 'vllm>=0.32'"),
        (ModuleType("vllm"), r"can't be imported .*pip install 'vllm>=0.32'"),
        (module_of_version("0.31.2"), r"vLLM 0.31.2 is not supported; install it with `pip install 'vllm>=0.32'`"),
        (module_of_version("0.9.0+cpu"), "vLLM 0.9.0"),
    ],
    ids=["missing", "an empty folder of that name", "older", "much older"],
)
def test_a_missing_or_old_vllm_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", module)
    with pytest.raises(UserError, match=message):
        build_engine(RolloutConfig(engine="vllm"))


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu", "0.33.1rc2", "1.0.0"])
def test_later_versions_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "vllm", module_of_version(version))
    engine = build_engine(RolloutConfig(engine="vllm"))
    assert isinstance(engine, VllmEngine)
    engine.close()


def engine_of(server: SmallServer, **vllm: Any) -> VllmServerEngine:
    settings = {"engine": "vllm", "vllm": {"server_url": server.url, **vllm}, "endpoint": {"max_retries": 1}}
    return VllmServerEngine(RolloutConfig.model_validate(settings), first_delay_seconds=0.001)


def test_another_server_is_sent_to_the_endpoint_engine() -> None:
    with SmallServer() as server, pytest.raises(UserError, match=r"not a vLLM server.*`rollout.engine: endpoint`"):
        engine_of(server).load(tiny_model(), 0)


def test_of_several_models_the_policys_own_is_asked_for() -> None:
    refusal = pytest.raises(UserError, match=r"does not hold `tiny-qwen2`; it holds `a`, `b`")
    with SmallServer(owned_by="vllm", models=("a", "b")) as server, refusal:
        engine_of(server).load(tiny_model(), 0)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (status(404), r"no weight routes .*VLLM_SERVER_DEV_MODE=1"),
        (status(500), r"did not take the weights .*check that it sees .*shared"),
        (drop, r"did not take the weights"),
    ],
    ids=["production server", "reload failed", "server fell over"],
)
def test_a_failed_hand_over_says_why(tmp_path: Path, trouble: Trouble, message: str) -> None:
    server = SmallServer(owned_by="vllm", troubles={0: trouble, 1: trouble})
    with server, pytest.raises(UserError, match=message):
        engine_of(server, weight_directory=str(tmp_path / "shared")).load(tiny_model(), 0)


def test_a_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"rollout.vllm.weight_directory: can't write .*taken"):
        write_weights(tiny_model(), tmp_path / "taken" / "version-0")


@pytest.mark.parametrize(
    ("settings", "raw", "processed"),
    [
        ({}, True, True),
        ({"temperature": 0.0}, True, True),
        ({"temperature": 0.6}, False, True),
        ({"top_p": 0.9}, True, False),
        ({"top_k": 20}, True, False),
        ({"min_p": 0.1}, True, False),
        ({"temperature": 0.6, "top_p": 0.9}, False, False),
        ({"temperature": 0.0, "top_p": 0.9}, True, True),
    ],
    ids=str,
)
def test_which_server_gives_the_log_probabilities_that_a_rollout_promises(
    settings: dict[str, float], raw: bool, processed: bool
) -> None:
    sampling = Sampling(max_tokens=4, **settings)  # pyright: ignore[reportArgumentType]
    assert (gives_logprobs(sampling, processed=False), gives_logprobs(sampling, processed=True)) == (raw, processed)
