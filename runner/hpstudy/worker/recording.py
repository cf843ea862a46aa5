"""A rank's exception, left in a file for the launcher, and its end.

torch's own ``record`` keeps whole seconds, and so cannot tell which of two ranks failed first.
"""

import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpstudy.api.errors import InvalidStudyError
from hpstudy.linux import be_killed_first, die_with_parent
from hpstudy.storage.attributes import Failure
from hpstudy.training.faults import is_out_of_memory, lost_a_peer
from hpstudy.trials.causes import Cause, Kind

_log = logging.getLogger(__name__)

_LEAVE_SECONDS = 10.0
"""For what a trial started and did not end, to end by itself: a thread that still writes a file, say."""
_MESSAGE_LIMIT = 2000  # characters; it ends in a condition of the study
_TRACEBACK_LIMIT = 20_000
_FIRST = 1000  # multiprocessing's own have 100 at most


def run_recorded(folder: str, function: Callable[..., None], *args: Any) -> None:
    """Run a rank; an exception goes into the folder and on to torch's launcher."""
    die_with_parent(signal.SIGKILL)  # torch's own choice, SIGINT, is an exception that may be handled at length
    be_killed_first()
    tempfile.tempdir = None  # the launcher's own ends with the trial
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # inherited from the launcher, it would raise as if the rank failed
    code = 1
    try:
        function(*args)
        code = 0
    except BaseException as error:
        cause = cause_of(error)
        written = Path(folder, f"cause-{cause.rank}")
        written.write_text(cause.model_dump_json())
        written.rename(written.with_suffix(".json"))  # whole or not at all: torch may end this rank at any moment
        if isinstance(error, SystemExit):
            raise SystemExit(1) from error  # torch takes exit code 0 for the function's end, and waits for the others
        raise
    finally:
        # Before the first of all that runs at the exit, when torch's launcher has read what the function returned.
        multiprocessing.util.Finalize(None, _limit_exit, args=(code,), exitpriority=_FIRST)


def _limit_exit(code: int) -> None:
    """Python waits at its exit for threads and processes that are no daemons, for ever: one that waits for the trial
    itself (to take what it has prepared, say) would hold up all trials that follow."""
    threading.Thread(target=_leave, args=(code,), daemon=True).start()


def _leave(code: int) -> None:
    time.sleep(_LEAVE_SECONDS)
    own = (threading.main_thread(), threading.current_thread())
    left = [f"thread {thread.name}" for thread in threading.enumerate() if thread not in own]
    left += [f"process {process.name} ({process.pid})" for process in multiprocessing.active_children()]
    _log.warning(
        "rank %s is done, and %g s later still has %s; it leaves without",
        os.environ.get("RANK"),
        _LEAVE_SECONDS,
        ", ".join(left) or "exit handlers that run",
    )
    multiprocessing.util._flush_std_streams()  # type: ignore[attr-defined]
    os._exit(code)


class RecordedError(Exception):
    """An error that was described where it happened.

    Attributes:
        cause: the description.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def cause_of(error: BaseException) -> Cause:
    """Describe an exception that is being handled on this rank."""
    if isinstance(error, RecordedError):
        return error.cause
    invalid = error.reason if isinstance(error, InvalidStudyError) else None
    rank = int(os.environ.get("RANK", "-1"))
    text = (str(error) if invalid else f"{type(error).__name__}: {error}")[:_MESSAGE_LIMIT]
    if isinstance(error, SystemExit):
        text = f"rank {rank} called sys.exit({error.code!r})"
    trace = traceback.format_exc()[-_TRACEBACK_LIMIT:]
    kind = Kind.SECONDARY if lost_a_peer(error) else Kind.RAISED
    failure = Failure.OOM if is_out_of_memory(error) else Failure.ERROR
    return Cause(rank=rank, kind=kind, failure=failure, message=text, traceback=trace, at=time.time(), invalid=invalid)


def read_causes(folder: str) -> list[Cause]:
    """What the ranks of this node left."""
    return [Cause.model_validate_json(path.read_text()) for path in Path(folder).glob("cause-*.json")]
