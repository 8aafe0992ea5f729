"""The local engine gives its cache back at once, without waiting for the collector of reference cycles."""

from __future__ import annotations

import gc
import weakref

from open_rs.prompts import render
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.local import LocalEngine
from open_rs.types import Problem
from tiny import tiny_model


def test_the_cache_is_gone_when_the_engine_sleeps() -> None:
    # Seen: a decoder that held its own bound method kept 110 MB a step until the collector ran.
    model, engine = tiny_model(), LocalEngine(max_concurrent=4)
    prompt = render(Problem("p", "1 + 1", "2", "test"), model.tokenizer, None, "{question}")
    gc.collect()
    gc.disable()
    try:
        with engine.awake():
            engine.load(model, version=0)
            list(engine.generate([Request(prompt, (0, 1))], Sampling(max_tokens=4)))
            assert engine._decoder is not None
            cache = weakref.ref(engine._decoder.cache)
        assert cache() is None
    finally:
        gc.enable()
