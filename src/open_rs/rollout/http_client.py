"""Many HTTP posts at a time to one server, retried with back-off, each answer handed over as it arrives."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import sleep, time
from typing import Any, Generic, TypeVar

import httpx

from open_rs.types import UserError

Answer = TypeVar("Answer")

# 408 and 425 ask for another try, 429 means too many at once, 5xx is the server's trouble and often passes.
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 10.0
FIRST_CONTACT_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Post(Generic[Answer]):
    """One request: where to, what, and how to read the answer's JSON (KeyError, TypeError: malformed, tried again)."""

    path: str
    body: Mapping[str, Any]
    read: Callable[[Any], Answer]


class RefusedError(Exception):
    """The server answered, and another try would get the same answer."""

    def __init__(self, status: int, path: str, message: str) -> None:
        super().__init__(f"{status} from {path}: {message}")
        self.status, self.path, self.message = status, path, message


class LostError(Exception):
    """All tries were used up by lost connections, time-outs, malformed answers or an overloaded server."""


class _RetryError(Exception):
    """This try failed in a way that may pass; `wait_seconds` is the server's own wish."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


# What may pass: lost connections, time-outs, a busy server, an answer cut short or not of the promised form.
PASSING = (httpx.TransportError, TimeoutError, _RetryError, ValueError, KeyError, IndexError, TypeError)


class HttpClient:
    """One server. `first_delay_seconds` doubles from try to try, with jitter so that clients do not return in step."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        max_concurrent: int,
        timeout_seconds: float,
        max_retries: int,
        first_delay_seconds: float,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"url: `{url}` is not an HTTP address; write it as http://host:port/v1")
        self.url = url.rstrip("/")
        self.max_concurrent = max_concurrent
        self.max_retries = max_retries
        self.first_delay_seconds = first_delay_seconds
        self.timeout_seconds = timeout_seconds
        self._jitter = random.Random()
        self._settings: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "timeout": httpx.Timeout(timeout_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds), pool=None),
            "limits": httpx.Limits(max_connections=max_concurrent, max_keepalive_connections=max_concurrent),
        }

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, base: str | None = None) -> Any:
        """One blocking call; its JSON, or None where the answer is empty. Gives up sooner than `post_all`.

        Raises RefusedError where the server says no, LostError where it does not answer.
        """
        tries = min(self.max_retries, FIRST_CONTACT_RETRIES) + 1
        with httpx.Client(**self._settings) as client:
            for attempt in range(tries):
                try:
                    response = client.request(method, f"{base or self.url}{path}", json=body)
                    _raise_for_status(response, path)
                    return response.json() if response.content else None
                except (httpx.TransportError, _RetryError, ValueError) as error:
                    if attempt == tries - 1:
                        raise LostError(_reason(error)) from error
                    sleep(self._delay(attempt, error))
        raise AssertionError("at least one try is made")

    def post_all(self, posts: Sequence[Post[Answer]]) -> Generator[tuple[int, Answer]]:
        """Yield (index of the post, its answer) in the order of arrival, `max_concurrent` under way at any time.

        A post that fails for good stops new ones from starting; those under way are finished and yielded, and only then
        is its RefusedError or LostError raised. Closing the iterator early closes the connections.
        """
        arrived: queue.SimpleQueue[tuple[int, Answer] | None] = queue.SimpleQueue()
        failures: list[Exception] = []
        pump = _Pump(self._drain(posts, arrived, failures), arrived, failures)
        try:
            while (item := arrived.get()) is not None:
                yield item
            if failures:
                raise failures[0]
        finally:
            pump.stop()

    async def _drain(
        self, posts: Sequence[Post[Any]], arrived: queue.SimpleQueue[Any], failures: list[Exception]
    ) -> None:
        waiting = deque(enumerate(posts))

        async def work(client: httpx.AsyncClient) -> None:
            while waiting and not failures:
                index, post = waiting.popleft()
                try:
                    arrived.put((index, await self._post(client, post)))
                except (RefusedError, LostError) as error:
                    failures.append(error)

        async with httpx.AsyncClient(**self._settings) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.max_concurrent, len(posts)))))

    async def _post(self, client: httpx.AsyncClient, post: Post[Answer]) -> Answer:
        for attempt in range(self.max_retries + 1):
            try:
                # httpx bounds the wait for each byte; this bounds the whole answer.
                async with asyncio.timeout(self.timeout_seconds):
                    response = await client.post(f"{self.url}{post.path}", json=post.body)
                _raise_for_status(response, post.path)
                return post.read(response.json())
            except PASSING as error:
                if attempt == self.max_retries:
                    raise LostError(_reason(error)) from error
                await asyncio.sleep(self._delay(attempt, error))
        raise AssertionError("at least one try is made")

    def _delay(self, attempt: int, error: Exception) -> float:
        backed_off = self.first_delay_seconds * 2**attempt * self._jitter.uniform(0.5, 1.0)
        wished = error.wait_seconds if isinstance(error, _RetryError) else 0.0
        return min(max(backed_off, wished), MAX_DELAY_SECONDS)


class _Pump:
    """Runs one coroutine on its own thread and event loop, and puts None into `arrived` when it has ended."""

    def __init__(self, work: Any, arrived: queue.SimpleQueue[Any], failures: list[Exception]) -> None:
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(work)
        self._arrived, self._failures = arrived, failures
        self._thread = threading.Thread(target=self._run, name="open-rs-http", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # a thread has no caller; `post_all` raises it in the reader's
            self._failures.append(error)
        finally:
            self._loop.close()
            self._arrived.put(None)

    def stop(self) -> None:
        """Cancel what is under way and wait for the thread; harmless when it has ended."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # the loop closed between the two lines
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


def _raise_for_status(response: httpx.Response, path: str) -> None:
    if response.status_code in RETRIED_STATUS:
        raise _RetryError(f"status {response.status_code}: {_message(response)}", _retry_after(response))
    if not response.is_success:
        raise RefusedError(response.status_code, path, _message(response))


def _retry_after(response: httpx.Response) -> float:
    """`Retry-After` in seconds; it may be a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except ValueError:
        return 0.0


def _message(response: httpx.Response) -> str:
    """The server's own words: the `error.message` or `detail` of its JSON, or the start of its text."""
    try:
        body = response.json()
    except ValueError:
        return " ".join(response.text.split())[:300]
    found = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    return str(found.get("message", found) if isinstance(found, dict) else found)[:500]


def _reason(error: Exception) -> str:
    if isinstance(error, _RetryError):
        return str(error)
    if isinstance(error, KeyError | IndexError | TypeError | ValueError):
        return f"malformed answer ({type(error).__name__}: {error})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
