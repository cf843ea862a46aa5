"""What happens in a group, for whoever watches: JSON lines on a pipe (``hpstudy run``), or the log (a pod)."""

import json
import logging
import os
from typing import Any

from hpstudy.trials.outcome import Outcome

_log = logging.getLogger("hpstudy")

_QUIET = {"progress"}  # too often for a log


class Events:
    """Emits events as ``{"event": kind, ...}``.

    Args:
        descriptor: an inherited pipe to write to; None logs instead.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor

    def emit(self, event: str, **details: Any) -> None:
        """Tell one event; a watcher that is gone is no reason to stop."""
        if self.descriptor is None:
            if event not in _QUIET:
                _log.info("%s %s", event, json.dumps(details, ensure_ascii=False))
            return
        line = json.dumps({"event": event, **details}, ensure_ascii=False) + "\n"
        try:
            os.write(self.descriptor, line.encode())
        except BrokenPipeError:
            self.descriptor = None

    def emit_end(self, number: int, outcome: Outcome, seconds: float) -> None:
        """Tell how a trial ended."""
        self.emit(
            "end",
            number=number,
            state="failed" if outcome.failure else "pruned" if outcome.pruned else "complete",
            failure=outcome.failure,
            again=outcome.again,
            message=outcome.message,
            values=outcome.values,
            metrics=dict(outcome.metrics),
            seconds=round(seconds, 3),
        )
