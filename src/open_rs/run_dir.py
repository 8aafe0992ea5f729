"""What a run leaves on disk: recipe, environment, metrics, rollouts, events, checkpoints, results, summary.

Every whole file is replaced atomically, every log is appended line by line, and a run that was cut off is read up to
its last whole line.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from open_rs.types import UserError

RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "math-verify",
    "numpy",
    "tokenizers",
    "vllm",
    "open-rs",
)


@dataclass(frozen=True)
class RunDir:
    """A run directory. `create` refuses a directory that already holds a run; `open` refuses one that holds none."""

    path: Path

    @classmethod
    def create(cls, path: Path, recipe_yaml: str) -> RunDir:
        """Start a run in `path`. Raises UserError if something of another run is already there, or the disk is full."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: already holds files; choose another directory with --out, or add --resume")
        with disk_errors(path):
            for part in ("rollouts", "checkpoints", "results"):
                (path / part).mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_text("recipe.yaml", recipe_yaml)
        run.write_json("environment.json", describe_environment())
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open an existing run, to read it or to go on with it."""
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: no run here (no recipe.yaml); give the directory that `open-rs train` wrote")
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        """Replace a file atomically: a reader sees the old text or the new, never half of it."""
        replace_file(self.path / name, text.encode("utf-8", "backslashreplace"))

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one JSON line and hand it to the operating system before returning."""
        with (
            disk_errors(self.path / name),
            (self.path / name).open("a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def event(self, kind: str, **details: Any) -> None:
        """Record something that a person would want to know afterwards: a roll-back, a dropped row, a split batch."""
        self.append("events.jsonl", {"time": time.time(), "kind": kind, **details})

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace a whole JSONL file; a name ending in `.gz` is compressed."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        content = lines.encode("utf-8", "backslashreplace")
        if name.endswith(".gz"):
            content = gzip.compress(content, compresslevel=5, mtime=0)
        replace_file(self.path / name, content)

    def read_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Rows of a JSONL file of this run; a half-written last line is left out."""
        return read_whole_lines(self.path / name)

    def keep_rows(self, name: str, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the rows of a log for which `keep(row)` is false, as a resumed run does with steps it will repeat."""
        self.write_rows(name, [row for row in self.read_rows(name) if keep(row)])


class disk_errors:  # noqa: N801  (read as a statement: `with disk_errors(path):`)
    """Turn a full disk or a missing permission into one sentence; what was there before stays as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, OSError):
            return
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and start again with --resume",
            errno.EDQUOT: "the disk quota is used up; free some space and start again with --resume",
            errno.EACCES: "no permission to write there; choose another directory with --out",
            errno.EROFS: "the file system is read-only; choose another directory with --out",
            errno.ENOTDIR: "a part of this path is a file; choose another directory with --out",
        }
        if error.errno in reasons:
            raise UserError(f"{self.path}: {reasons[error.errno]}") from error


def replace_file(target: Path, content: bytes) -> None:
    """Replace a whole file atomically: a reader, and a power cut, finds the old content or the new."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)


def read_whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL log, compressed or not; none where there is no file; a last line without its end is no row yet.

    Raises UserError, with its number, for a line that isn't JSON.
    """
    if not path.exists():
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: not valid JSON ({error}); delete the line and start again"
                ) from error


def next_free(path: Path) -> Path:
    """`runs/demo`, or `runs/demo-2`, `runs/demo-3`, ... whichever is the first that holds nothing."""
    candidate, number = path, 1
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def describe_environment() -> dict[str, Any]:
    """Python, packages, machine and git state: what a person needs to repeat the run."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: version for name in RECORDED_PACKAGES if (version := _package_version(name))},
        "git": _git_state(Path(__file__).parent),
    }


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state(directory: Path) -> dict[str, Any] | None:
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        result = subprocess.run([git, "-C", str(directory), *words], capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "uncommitted_changes": bool(ask("status", "--porcelain"))}
