"""What happens in a group, for whoever watches: JSON lines on a pipe (``hpstudy run``), or the log (a pod)."""

import json
import logging
import os
from typing import Any

_log = logging.getLogger("hpstudy")

_QUIET = {"progress"}  # too often for a log


class Events:
    """Emits events as ``{"event": kind, ...}``.

    Args:
        descriptor: an inherited pipe to write to; None logs instead.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def emit(self, event: str, **details: Any) -> None:
        """Tell one event; a watcher that is gone is no reason to stop."""
        if self._descriptor is None:
            if event not in _QUIET:
                _log.info("%s %s", event, json.dumps(details, ensure_ascii=False))
            return
        line = json.dumps({"event": event, **details}, ensure_ascii=False) + "\n"
        try:
            os.write(self._descriptor, line.encode())
        except BrokenPipeError:
            self._descriptor = None
