"""Logs for machines: one JSON object a line, with the study that a line is about."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

import optuna

from hpstudy_operator.observe import Key

_study: ContextVar[Key | None] = ContextVar("study", default=None)


@contextmanager
def about(key: Key) -> Iterator[None]:
    """Name the study in every line that is logged in the block, also by libraries."""
    token = _study.set(key)
    try:
        yield
    finally:
        _study.reset(token)


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message; study and namespace where there are."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if key := _study.get():
            line |= {"namespace": key.namespace, "study": key.name}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str = "info") -> None:
    """Send everything from this level on to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("kopf.objects", "kopf.activities"):  # a line for every event
        logging.getLogger(chatty).setLevel(logging.WARNING)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
