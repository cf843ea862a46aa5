"""What ``hpstudy run`` shows while it runs."""

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpstudy.api.metrics import find_metric
from hpstudy.api.study import StudySpec
from hpstudy.cli.text import format_parameters, format_seconds, format_values
from hpstudy.storage.reading import StudySnapshot

_REFRESH = 4  # times a second
_MOST_SHOWN = 12
"""Running trials that are shown; of a hundred a terminal shows none well."""


@dataclass
class _Running:
    """A trial that runs."""

    parameters: str
    metrics: str = ""
    share: float = 0.0


class Display:
    """A line for each trial that ended, and below them those that run. Without a terminal only the lines."""

    def __init__(self, spec: StudySpec, name: str, snapshot: StudySnapshot, console: Console) -> None:
        self._spec = spec
        self._console = console
        self._name = name
        self._finished = snapshot.counts.complete + snapshot.counts.pruned
        self._best, self._best_value = "", math.nan
        if snapshot.best:
            self._note_best(snapshot.best[0].number, snapshot.best[0].values)
        self._running: dict[int, _Running] = {}
        self._seconds: list[float] = []
        self._state = "starting: importing torch, preparing the data"
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=_REFRESH, transient=True)

    def __enter__(self) -> Self:
        resumed = f", {self._finished} done before" if self._finished else ""
        budget = self._spec.budget
        limits = f"{budget.max_trials} trials"
        limits += f", no longer than {budget.timeout}" if budget.timeout is not None else ""
        limits += f", {budget.gpu_hours:g} GPU hours" if budget.gpu_hours is not None else ""
        self._console.print(f"Study [bold]{self._name}[/bold]: {limits}{resumed}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def stopping(self) -> None:
        """Ctrl-C was pressed."""
        self._state = "stopping: what runs is handed back (Ctrl-C again: at once)"
        self._running.clear()

    def show(self, event: dict[str, Any]) -> None:
        """Take in one event of the worker."""
        match event:
            case {"event": "ready"}:
                self._state = "preparing the data"
            case {"event": "trial", "number": number, "parameters": parameters}:
                self._running[number] = _Running(format_parameters(parameters))
            case {"event": "progress", "number": number, "share": share} if number in self._running:
                self._running[number].share = share
            case {"event": "report", "number": number, "metrics": metrics} if number in self._running:
                names = [objective.metric for objective in self._spec.objectives]
                found = {name: find_metric(metrics, name) for name in names}
                self._running[number].metrics = format_values(
                    {name: value for name, value in found.items() if value is not None}
                )
            case {"event": "end"}:
                self._end(event)
            case {"event": "script-failed", "message": message}:
                self._console.print("[red]the script failed after its search[/red]  ", Text(message.strip()), sep="")

    def _end(self, event: dict[str, Any]) -> None:
        ended = self._running.pop(event["number"], _Running(""))
        self._seconds.append(event["seconds"])
        if event["state"] == "failed":
            failed = f"trial {event['number']:>3}  [red]{event['failure']}[/red]"
            failed += ", runs again  " if event["again"] else "  "
            self._console.print(failed, Text(event["message"].strip()), sep="")
            return
        self._finished += 1
        value = "pruned " + ended.metrics
        if event["values"] is not None:
            values = {o.metric: v for o, v in zip(self._spec.objectives, event["values"], strict=True)}
            value = format_values(values)
            if self._keeps_constraints(event["metrics"]):
                self._note_best(event["number"], values)
            else:
                value += " (beyond a constraint)"
        seconds = format_seconds(event["seconds"])
        line = Text.assemble(f"trial {event['number']:>3}  ", (value, "bold"), f"  {seconds}  ", ended.parameters)
        self._console.print(line, soft_wrap=True)

    def _keeps_constraints(self, metrics: dict[str, Any]) -> bool:
        return all(
            violation <= 0
            for constraint in self._spec.constraints
            for violation in constraint.violations(find_metric(metrics, constraint.metric)).values()
        )

    def _note_best(self, number: int, values: dict[str, float]) -> None:
        objective, value = self._spec.objectives[0], next(iter(values.values()))
        better = math.isnan(self._best_value) or (
            value > self._best_value if objective.direction == "maximize" else value < self._best_value
        )
        if better:
            self._best_value, self._best = value, f"{format_values(values)} (trial {number})"

    def _render(self) -> Group:
        left = self._spec.budget.max_trials - self._finished
        head = f"{self._finished}/{self._spec.budget.max_trials} trials"
        if self._best:
            head += f"   best {self._best}"
        if self._seconds:
            begun = sum(running.share for running in self._running.values())
            side_by_side = max(len(self._running), 1)
            remaining = sum(self._seconds) / len(self._seconds) * max(left - begun, 0) / side_by_side
            head += f"   left about {format_seconds(remaining)}"
        if not self._running:
            return Group(Text(head, style="bold"), Text(self._state, style="dim"))
        rows = Table.grid(padding=(0, 1))
        for number, running in list(self._running.items())[:_MOST_SHOWN]:
            bar = ProgressBar(total=1, completed=running.share, width=20)
            rows.add_row(f"trial {number}", bar, running.metrics, Text(running.parameters, "dim", no_wrap=True))
        more = len(self._running) - _MOST_SHOWN
        return Group(Text(head, style="bold"), rows, *([Text(f"and {more} more", style="dim")] if more > 0 else []))
