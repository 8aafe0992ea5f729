"""What a person sees in the terminal while a run goes on: one live line, or plain lines where output is a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

PLAIN_LINE_SECONDS = 5.0
COLUMNS = (  # metric, heading, format
    ("reward", "reward", "{:.2f}"),
    ("accuracy", "accuracy", "{:.0%}"),
    ("completion_tokens", "length", "{:.0f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
)


class TimeLeft(ProgressColumn):
    """Time left, from the mean duration of the steps since this process started."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("seconds_left")
        return Text("" if left is None else f"{duration(left)} left", style="cyan")


class Live:
    """Call it with each event of a run: `live("step", row)`. Use it in a `with` block."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            TimeLeft(),
            console=self.console,
            transient=True,
        )
        self.task: Any = None
        self.label = ""
        self.seconds: list[float] = []
        self.printed_at = float("-inf")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def __call__(self, kind: str, row: Mapping[str, Any]) -> None:
        HANDLERS.get(kind, Live._say)(self, row)

    def _step(self, row: Mapping[str, Any]) -> None:
        self.seconds = [*self.seconds[-19:], row["seconds"]]
        left = (row["last_step"] - row["step"]) * sum(self.seconds) / len(self.seconds)
        numbers = "  ".join(f"{heading} {form.format(row[key])}" for key, heading, form in COLUMNS if key in row)
        self._show("training", row["step"], row["last_step"], f"{numbers}  {row['spent']}".strip(), left)
        if "validation_accuracy" in row:
            self._line(f"step {row['step']}: {row['validation_accuracy']:.1%} right on held-out problems")

    def _evaluation(self, row: Mapping[str, Any]) -> None:
        self._show(row["label"], row["done"], row["total"], "", row.get("seconds_left"))

    def _say(self, row: Mapping[str, Any]) -> None:
        self._line(str(row.get("text") or row.get("why") or ""))

    def _show(self, label: str, done: int, total: int, numbers: str, left: float | None) -> None:
        if not self.console.is_terminal:
            if time.monotonic() - self.printed_at > PLAIN_LINE_SECONDS or done == total:
                self._line(f"{label} {done}/{total}  {numbers}" + ("" if left is None else f"  {duration(left)} left"))
                self.printed_at = time.monotonic()
            return
        if label != self.label or self.task is None:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.task = self.progress.add_task(label, total=total, numbers="", seconds_left=None)
            self.label = label
        self.progress.update(self.task, completed=done, total=total, numbers=numbers, seconds_left=left)

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """`3725 -> "1 h 02 min"`, `65 -> "1 min 05 s"`, `9 -> "9 s"`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


HANDLERS = {"step": Live._step, "evaluation": Live._evaluation, "alarm": Live._say, "say": Live._say}
