"""The progress of a program: done of all, items a second, time left; a bar, or lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY = 30.0  # seconds, in a log file


class Rate(ProgressColumn):
    """Items a second, over the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


def bar(items: Iterable[Any], text: str) -> Iterator[Any]:
    """The items, with a bar that moves as they are taken and is gone when all are."""
    console = Console()
    if not console.is_terminal:
        yield from lines(items, text, LINE_EVERY)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console) as progress:
        yield from progress.track(items, description=text)


def lines(items: Iterable[Any], text: str, every: float) -> Iterator[Any]:
    """The items, with a line every so many seconds."""
    began = last = time.monotonic()
    total = len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items):
        yield item
        if (now := time.monotonic()) - last >= every:
            rate, last = (done + 1) / (now - began), now
            left = (
                f" of {total:,}, {rate:,.0f}/s, {(total - done - 1) / rate:,.0f} s left"
                if total
                else f", {rate:,.0f}/s"
            )
            print(f"{text}: {done + 1:,}{left}", flush=True)
