"""What ``hpstudy run`` shows while it runs."""

import math
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


class Display:
    """A line for each trial that ended, and below them the one that runs. Without a terminal only the lines."""

    def __init__(self, spec: StudySpec, name: str, snapshot: StudySnapshot, console: Console) -> None:
        self._spec = spec
        self._console = console
        self._name = name
        self._finished = snapshot.counts.complete + snapshot.counts.pruned
        self._best, self._best_value = "", math.nan
        if snapshot.best:
            self._note_best(snapshot.best[0].number, snapshot.best[0].values)
        self._number: int | None = None
        self._parameters = ""
        self._metrics = ""
        self._share = 0.0
        self._seconds: list[float] = []
        self._state = "starting: importing torch, preparing the data"
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=_REFRESH, transient=True)

    def __enter__(self) -> Self:
        resumed = f", {self._finished} done before" if self._finished else ""
        self._console.print(f"Study [bold]{self._name}[/bold]: {self._spec.budget.max_trials} trials{resumed}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def stopping(self) -> None:
        """Ctrl-C was pressed."""
        self._state = "stopping: the running trial is handed back (Ctrl-C again: at once)"
        self._number = None

    def show(self, event: dict[str, Any]) -> None:
        """Take in one event of the worker."""
        match event:
            case {"event": "ready"}:
                self._state = "preparing the data"
            case {"event": "trial", "number": number, "parameters": parameters}:
                self._number, self._parameters = number, format_parameters(parameters)
                self._metrics, self._share = "", 0.0
            case {"event": "progress", "share": share}:
                self._share = share
            case {"event": "report", "metrics": metrics}:
                names = [objective.metric for objective in self._spec.objectives]
                found = {name: find_metric(metrics, name) for name in names}
                self._metrics = format_values({name: value for name, value in found.items() if value is not None})
            case {"event": "end"}:
                self._end(event)

    def _end(self, event: dict[str, Any]) -> None:
        self._number = None
        self._seconds.append(event["seconds"])
        if event["state"] == "failed":
            failed = f"trial {event['number']:>3}  [red]{event['failure']}[/red]  "
            self._console.print(failed, Text(event["message"].strip()), sep="")
            return
        self._finished += 1
        value = "pruned " + self._metrics
        if event["values"] is not None:
            values = {o.metric: v for o, v in zip(self._spec.objectives, event["values"], strict=True)}
            value = format_values(values)
            if self._keeps_constraints(event["metrics"]):
                self._note_best(event["number"], values)
            else:
                value += " (beyond a constraint)"
        seconds = format_seconds(event["seconds"])
        line = Text.assemble(f"trial {event['number']:>3}  ", (value, "bold"), f"  {seconds}  ", self._parameters)
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
            remaining = sum(self._seconds) / len(self._seconds) * max(left - self._share, 0)
            head += f"   left about {format_seconds(remaining)}"
        if self._number is None:
            return Group(Text(head, style="bold"), Text(self._state, style="dim"))
        row = Table.grid(padding=(0, 1))
        row.add_row(f"trial {self._number}", ProgressBar(total=1, completed=self._share, width=20), self._metrics)
        return Group(Text(head, style="bold"), row, Text(self._parameters, style="dim"))
