"""A real `vllm serve` on loopback for tests, on the CPU, ended with its workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 300
OPTIONS = ("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(64 * 2**20))


@dataclass(frozen=True)
class Served:
    """A running server; `weights` is a directory of its own, for whoever hands weights over."""

    process: subprocess.Popen[bytes]
    url: str
    model: Path
    weights: Path

    def kill(self) -> None:
        """End the server and its workers, which share its process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serve(model: Path, directory: Path, *options: str) -> Iterator[Served]:
    """Serve the model in a directory under the name `tiny`; the log goes to `directory`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(Path(sys.executable).with_name("vllm")), "serve", str(model)),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)),
        *(*OPTIONS, *options),
    ]
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1", "VLLM_SERVER_DEV_MODE": "1"}
    log = directory / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    served = Served(process, f"http://127.0.0.1:{port}", model, directory / "weights")
    try:
        _wait_until_healthy(served, log)
        yield served
    finally:
        if process.poll() is None:
            served.kill()


def _wait_until_healthy(served: Served, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert served.process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            if httpx.get(f"{served.url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"no server after {START_SECONDS} s: {log.read_text(errors='replace')[-3000:]}")
