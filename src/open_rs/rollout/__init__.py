"""Rollout engines: one protocol, four ways to sample. Engines are imported only when one is built."""

from __future__ import annotations

from collections.abc import Callable

from open_rs.config.schema import RolloutConfig
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.types import UserError

__all__ = ["Engine", "Request", "Sampling", "build_engine"]


def build_engine(config: RolloutConfig) -> Engine:
    """The engine that `config.engine` names; call `load` before `generate`. Raises UserError where it can't be had."""
    return ENGINES[config.engine](config)


def _local(config: RolloutConfig) -> Engine:
    from open_rs.rollout.local import LocalEngine

    return LocalEngine(max_concurrent=config.max_concurrent, cache_tokens=config.cache_tokens)


def _vllm(config: RolloutConfig) -> Engine:
    if config.vllm.server_url is not None:
        from open_rs.rollout.vllm_server import VllmServerEngine

        return VllmServerEngine(config)
    from open_rs.rollout.vllm import VllmEngine

    return VllmEngine(config)


def _endpoint(config: RolloutConfig) -> Engine:
    from open_rs.rollout.endpoint import EndpointEngine

    return EndpointEngine(config)


def _scripted(config: RolloutConfig) -> Engine:
    raise UserError(
        "rollout.engine: a script can't stand in a recipe; build `open_rs.rollout.scripted.ScriptedEngine` in Python "
        "and hand it on, or choose `local`"
    )


ENGINES: dict[str, Callable[[RolloutConfig], Engine]] = {
    "local": _local,
    "vllm": _vllm,
    "endpoint": _endpoint,
    "scripted": _scripted,
}
