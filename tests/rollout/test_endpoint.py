"""The endpoint engine against a real HTTP server that fails, drops connections and delays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from small_server import SmallServer, Trouble, cut, drop, status

from open_rs.config.schema import RolloutConfig
from open_rs.prompts import Prompt
from open_rs.rollout.endpoint import UNKNOWN_TOKEN, EndpointEngine, read_chat, sample_seed
from open_rs.rollout.engine import Request, Sampling
from open_rs.types import Rollout, UserError

GREEDY = Sampling(max_tokens=8, temperature=0.0)
WARM = Sampling(max_tokens=8, temperature=0.7, seed=3, step=5)


def request(problem_id: str = "p0", samples: tuple[int, ...] = (0, 1), tokens: tuple[int, ...] = (5, 6)) -> Request:
    return Request(Prompt(problem_id, ({"role": "user", "content": "2+2?"},), "2+2?", tokens), samples)


def engine(server: SmallServer, **settings: Any) -> EndpointEngine:
    return build(url=server.url, **{"max_retries": 3, **settings})


def build(**settings: Any) -> EndpointEngine:
    return EndpointEngine(RolloutConfig.model_validate({"endpoint": settings}), first_delay_seconds=0.005)


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


def keys(rollouts: list[Rollout]) -> list[tuple[str, int]]:
    return sorted((rollout.problem_id, rollout.sample) for rollout in rollouts)


def test_every_sample_of_every_request_comes_back_once(server: SmallServer) -> None:
    requests = [request(f"p{n}", (0, 1, 7)) for n in range(10)]
    rollouts = list(engine(server, max_concurrent=4).generate(requests, WARM))
    assert keys(rollouts) == sorted((f"p{n}", sample) for n in range(10) for sample in (0, 1, 7))


def test_each_sample_has_its_own_seed_and_keeps_it(server: SmallServer) -> None:
    texts = {rollout.sample: rollout.text for rollout in engine(server).generate([request(samples=(0, 1, 2))], WARM)}
    assert len(set(texts.values())) == 3
    (extended,) = engine(server).generate([request(samples=(2,))], WARM)
    assert extended.text == texts[2] == f"seed {sample_seed(WARM, 'p0', 2)}"


def test_no_more_than_max_concurrent_posts_are_under_way(server: SmallServer) -> None:
    server.delay_seconds = 0.02
    list(engine(server, max_concurrent=3).generate([request(samples=tuple(range(12)))], WARM))
    assert 1 < server.most_at_once <= 3


def test_rollouts_arrive_before_the_last_is_finished(server: SmallServer) -> None:
    server.delay_seconds = 0.02
    stream = engine(server, max_concurrent=1).generate([request(samples=tuple(range(20)))], WARM)
    next(stream)
    assert server.num_posts < 10
    stream.close()


def test_closing_early_stops_the_posts_and_the_thread(server: SmallServer) -> None:
    server.delay_seconds = 0.02
    stream = engine(server, max_concurrent=2).generate([request(samples=tuple(range(200)))], WARM)
    next(stream)
    stream.close()
    assert server.num_posts < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "open-rs-http"]


TROUBLES = {
    "rate limit": status(429),
    "rate limit with a wish": status(429, {"Retry-After": "0"}),
    "rate limit with a date": status(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "internal error": status(500),
    "overloaded": status(503, text="<html>busy</html>"),
    "connection dropped": drop,
    "answer cut short": cut,
    "not JSON": status(200, text="<html>"),
    "no choices": status(200, text="{}"),
    "broken off": status(200, text='{"choices": [{"text": "half", "finish_reason": null}]}'),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_a_passing_trouble_costs_nothing_but_time(server: SmallServer, trouble: Trouble) -> None:
    server.troubles = {0: trouble, 1: trouble, 3: trouble}
    rollouts = list(engine(server, max_concurrent=2).generate([request(samples=tuple(range(6)))], WARM))
    assert keys(rollouts) == [("p0", sample) for sample in range(6)]
    assert server.num_posts == 9
    assert set(server.seen.values()) == {1}, "a finished sample was asked for again"


def test_a_slow_answer_is_asked_for_again(server: SmallServer) -> None:
    server.delay_seconds = 2.0
    stream = engine(server, timeout_seconds=0.3, max_retries=1).generate([request(samples=(0,))], WARM)
    with pytest.raises(UserError, match=r"no answer \(.*Timeout.*0 of 1 samples"):
        list(stream)
    assert server.num_posts == 2


def test_a_server_that_dies_in_the_middle_loses_no_finished_sample(server: SmallServer) -> None:
    server.lost_after = 7
    kept: list[Rollout] = []
    with pytest.raises(UserError, match=r"no answer .* after 7 of 20 samples; those are kept"):
        kept.extend(engine(server, max_concurrent=4).generate([request(samples=tuple(range(20)))], WARM))
    assert len(kept) == 7
    server.lost_after = None
    missing = tuple(sorted(set(range(20)) - {rollout.sample for rollout in kept}))
    kept.extend(engine(server).generate([request(samples=missing)], WARM))
    assert keys(kept) == [("p0", sample) for sample in range(20)]
    assert set(server.seen.values()) == {1}


def test_an_absent_server_is_named_with_what_to_do() -> None:
    with SmallServer() as gone:
        url = gone.url
    with pytest.raises(UserError, match=rf"{url}: no answer .*check that the server runs"):
        build(url=url).load(None, 0)


@pytest.mark.parametrize("address", ["127.0.0.1:8000/v1", "ftp://host/v1", ""])
def test_an_address_that_is_not_http_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="write it as http://host:port/v1"):
        build(url=address)


@pytest.mark.parametrize(
    ("held", "wanted", "message"),
    [
        (("a", "b"), "c", r"does not hold `c`; it holds `a`, `b`"),
        (("a", "b"), None, r"was not told which model to use; it holds `a`, `b`"),
        ((), None, r"it holds no model"),
        (tuple(f"m{n}" for n in range(12)), "c", r"`m7` and 4 more"),
    ],
)
def test_a_model_that_the_server_does_not_hold(held: tuple[str, ...], wanted: str | None, message: str) -> None:
    with SmallServer(models=held) as server, pytest.raises(UserError, match=message):
        engine(server, model=wanted).load(None, 0)


def test_the_only_model_is_taken_when_none_is_named(server: SmallServer) -> None:
    list(engine(server).generate([request()], WARM))
    assert {body["model"] for body in server.bodies} == {"tiny"}


@pytest.mark.parametrize(
    ("code", "advice"),
    [(400, "prompt's length"), (401, "`OPENAI_API_KEY` to a valid key"), (403, "may not use"), (404, "`/v1`")],
)
def test_a_refusal_is_not_tried_again(server: SmallServer, code: int, advice: str) -> None:
    server.troubles = {1: status(code, text='{"error": {"message": "the server\'s words"}}')}
    with pytest.raises(UserError, match=rf"refused after 1 of 4 samples.*{code}.*the server's words.*{advice}"):
        list(engine(server, max_concurrent=1).generate([request(samples=(0, 1, 2, 3))], WARM))
    assert server.num_posts == 2


def test_only_a_server_that_knows_them_is_sent_additions_to_the_protocol() -> None:
    standard = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}
    for owner, additions in (("someone", set()), ("vllm", {"return_token_ids", "skip_special_tokens"})):
        with SmallServer(owned_by=owner) as server:
            list(engine(server).generate([request(samples=(0,))], GREEDY))
            assert set(server.bodies[0]) == standard | additions
    with SmallServer() as server:
        list(engine(server).generate([request(samples=(0,))], Sampling(8, top_k=4, min_p=0.1)))
        assert (server.bodies[0]["top_k"], server.bodies[0]["min_p"]) == (4, 0.1)


def test_the_key_comes_from_the_environment(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    list(engine(server, api_key_env="SOME_KEY").generate([request(samples=(0,))], WARM))
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_prompt_without_tokens_is_sent_as_text(server: SmallServer) -> None:
    list(engine(server).generate([request(samples=(0,)), request("p1", (0,), tokens=())], WARM))
    assert sorted((body["prompt"] for body in server.bodies), key=str) == ["2+2?", [5, 6]]


def test_chat_sends_messages_and_no_prompt(server: SmallServer) -> None:
    (rollout,) = engine(server, api="chat").generate([request(samples=(0,))], WARM)
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "2+2?"}]
    assert "prompt" not in server.bodies[0]
    assert rollout.prompt_tokens == (UNKNOWN_TOKEN,) * 5, "the server rendered the prompt, so ours is not what it read"


def test_unsent_token_ids_are_counted_and_never_invented(server: SmallServer) -> None:
    (rollout,) = engine(server).generate([request(samples=(0,))], WARM)
    assert (rollout.tokens, rollout.logprobs, rollout.prompt_tokens) == ((UNKNOWN_TOKEN,) * 3, None, (5, 6))


def test_token_ids_of_the_server_are_kept() -> None:
    sent = {"token_ids": [9, 8, 7], "prompt_token_ids": [1, 2], "finish_reason": "length"}
    with SmallServer(completion=sent) as server:
        (rollout,) = engine(server).generate([request(samples=(0,))], WARM)
    assert (rollout.tokens, rollout.prompt_tokens, rollout.finish) == ((9, 8, 7), (1, 2), "length")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "4"}, "4"),
        ({"content": "4", "reasoning_content": "two and two"}, "<think>two and two</think>4"),
        ({"content": "4", "reasoning": "two and two"}, "<think>two and two</think>4"),
        ({"content": None, "reasoning_content": "two and"}, "<think>two and"),
        ({"content": None}, ""),
    ],
)
def test_reasoning_that_the_server_split_off_is_put_back(message: dict[str, Any], text: str) -> None:
    assert read_chat({"choices": [{"message": message, "finish_reason": "stop"}]}).text == text


def test_an_endpoint_refuses_to_follow_a_training_run(server: SmallServer) -> None:
    followed = engine(server)
    followed.load(None, 0)
    followed.load(None, 0)
    with pytest.raises(UserError, match="can't follow a training run"):
        followed.load(None, 1)


def test_no_requests_need_no_server() -> None:
    assert list(build(url="http://127.0.0.1:9/v1").generate([], WARM)) == []
