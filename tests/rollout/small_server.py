"""A small OpenAI-compatible server on loopback that fails, drops, delays and cuts answers short when told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Trouble = Callable[["Handler"], None]


def status(
    code: int, headers: Mapping[str, str] | None = None, text: str = '{"error": {"message": "not now"}}'
) -> Trouble:
    """Answer with an error."""
    return lambda handler: handler.answer(code, text, headers or {})


def drop(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def cut(handler: Handler) -> None:
    """Promise a long answer, send half of it and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@dataclass
class SmallServer:
    """Runs in threads; `troubles[n]` happens to the n-th post, `lost_after` posts later every connection is dropped."""

    owned_by: str = "someone"
    models: tuple[str, ...] = ("tiny",)
    max_model_len: int | None = None
    delay_seconds: float = 0.0
    troubles: dict[int, Trouble] = field(default_factory=dict)
    lost_after: int | None = None
    completion: Mapping[str, Any] | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    num_posts: int = 0
    seen: Counter[int] = field(default_factory=Counter)

    def __enter__(self) -> SmallServer:
        self.lock = threading.Lock()
        self.under_way = 0
        handler = type("BoundHandler", (Handler,), {"small": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        """Where the engine should be pointed."""
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def complete(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        """One completion whose text tells which seed was asked for."""
        text = f"seed {body['seed']}"
        spoken = (
            {"text": text} if path.endswith("/completions") and "chat" not in path else {"message": {"content": text}}
        )
        choice = {"index": 0, "finish_reason": "stop", **spoken, **(self.completion or {})}
        return {"choices": [choice], "usage": {"completion_tokens": 3, "prompt_tokens": 5}}


class Handler(BaseHTTPRequestHandler):
    """One connection. `protocol_version` 1.1 keeps it open between posts, as real servers do."""

    small: SmallServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self, code: int, text: str, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        """List the models."""
        small = self.small
        listed = [{"id": n, "owned_by": small.owned_by, "max_model_len": small.max_model_len} for n in small.models]
        self.answer(200, json.dumps({"data": listed}), {})

    def do_POST(self) -> None:
        """Complete, or make the trouble that is due."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        small = self.small
        with small.lock:
            number = small.num_posts
            small.num_posts += 1
            small.bodies.append(body)
            small.headers.append(dict(self.headers))
            small.under_way += 1
            small.most_at_once = max(small.most_at_once, small.under_way)
        try:
            self.serve(number, body)
        finally:
            with small.lock:
                small.under_way -= 1

    def serve(self, number: int, body: dict[str, Any]) -> None:
        """Answer post `number`."""
        small = self.small
        if small.delay_seconds:
            time.sleep(small.delay_seconds)
        trouble = drop if small.lost_after is not None and number >= small.lost_after else small.troubles.get(number)
        if trouble is not None:
            trouble(self)
            return
        small.seen[body["seed"]] += 1
        self.answer(200, json.dumps(small.complete(body, self.path)), {})
