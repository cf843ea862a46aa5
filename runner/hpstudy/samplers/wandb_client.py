"""What a sweep needs of W&B's client package: the sweep itself, an agent of it, and runs that its UI shows.

The agent protocol (``createAgent``, ``agentHeartbeat`` with the commands run, stop and exit) is that of ``wandb
agent``; that program itself runs the training in a thread and ends it by an exception thrown into it, which ranks of a
distributed trial would not survive. The calls are private to the client package, so its version is pinned.
"""

import logging
import os
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
"""As of W&B's agent."""
_TIMEOUT = 20  # seconds for one request, all tries of the client together
_FINISH_TIMEOUT = 60.0  # seconds that the last data of a run may take on its way
_INIT_TIMEOUT = 30.0  # seconds until a trial goes on without being shown
_TEARDOWN_TIMEOUT = 10.0  # seconds; runs are finished by then
DEFAULT_PROJECT = "hpstudy"
_UNAUTHORIZED = (401, 403)
_BUSY = (408, 429)  # worth trying again


class ServerUnreachableError(ConnectionError):
    """The W&B server does not answer; worth trying again."""


@dataclass(frozen=True)
class SweepRef:
    """Where a sweep is."""

    sweep: str
    project: str
    entity: str | None
    server: str
    """URL of the server."""


@dataclass(frozen=True)
class Suggestion:
    """A run that the server wants made."""

    run: str
    config: Mapping[str, Any]
    """By name of the parameter its value or, of nested ones, their values by name."""


def _service_process() -> "subprocess.Popen[bytes] | None":
    """The process that the client has started to talk to the server, if it has."""
    from wandb.sdk import wandb_setup

    connection = wandb_setup._singleton and wandb_setup._singleton._connection
    return connection._proc._process if connection and connection._proc else None


class Client:
    """A connection to the server that the environment names (WANDB_API_KEY, WANDB_BASE_URL).

    Raises:
        ImportError: the client package is not installed; the message says how.
        InvalidStudyError: the server refuses the key.
        ServerUnreachableError: it does not answer.
    """

    def __init__(self) -> None:
        self._wandb = load_client()
        self._folder = tempfile.TemporaryDirectory(prefix="hpstudy-wandb-", ignore_cleanup_errors=True)
        self._lock = threading.Lock()
        try:
            with self._talking():
                self._api = self._wandb.Api(timeout=_TIMEOUT)
        except BaseException:
            self.close()
            raise

    @property
    def server(self) -> str:
        """URL of the server."""
        return str(self._api.settings["base_url"])

    def make_sweep(self, config: Mapping[str, Any], name: str) -> SweepRef:
        """Make a sweep; ``name`` is what the UI calls it where the configuration has no name."""
        from wandb.apis.public.sweeps import _upsert_sweep

        project = config.get("project") or self._api.settings["project"] or DEFAULT_PROJECT
        with self._talking():
            made, complaints = _upsert_sweep(
                self._api, {"name": name, **config}, project=project, entity=config.get("entity")
            )
        for complaint in complaints or ():
            _log.warning("W&B says of the sweep configuration: %s", complaint)
        place = made.get("project") or {}
        return SweepRef(
            made["name"],
            place.get("name") or project,
            (place.get("entity") or {}).get("name") or config.get("entity"),
            self.server,
        )

    def sweep_state(self, ref: SweepRef) -> str:
        """RUNNING, PAUSED, CANCELED or FINISHED."""
        from wandb.apis.public.sweeps import _get_sweep_state

        with self._talking():
            return str(_get_sweep_state(self._api, ref.sweep, entity=ref.entity, project=ref.project))

    def register_agent(self, ref: SweepRef) -> str:
        """Become an agent of the sweep; returns the agent's id."""
        from wandb.apis.public.sweeps import _register_agent

        with self._talking():
            agent = _register_agent(
                self._api, socket.gethostname(), sweep_id=ref.sweep, entity=ref.entity, project=ref.project
            )
        return str(agent["id"])

    def heartbeat(self, agent: str, runs: Mapping[str, bool]) -> list[dict[str, Any]]:
        """Tell which runs are in hand, and get commands; none, where the server does not answer.

        Raises:
            LookupError: the sweep was deleted.
        """
        from wandb.apis.public.sweeps import _agent_heartbeat
        from wandb.sdk.sweeps import SweepNotFoundError

        try:
            with self._talking():
                return _agent_heartbeat(self._api, agent, {}, dict(runs)) or []
        except SweepNotFoundError as error:
            raise LookupError(str(error)) from None

    def start_run(self, ref: SweepRef, run: str, name: str, config: Mapping[str, Any]) -> "MirroredRun":
        """Show a run of the sweep, whether the server suggested it or not."""
        with self._lock:
            made = self._wandb.init(
                id=run,
                name=name,
                project=ref.project,
                entity=ref.entity,
                config=dict(config),
                dir=os.environ.get("WANDB_DIR") or self._folder.name,
                reinit="create_new",
                # The run shows a trial, not this process: neither its output nor its machine or code.
                settings=self._wandb.Settings(
                    sweep_id=ref.sweep,
                    silent=True,
                    console="off",
                    disable_code=True,
                    disable_git=True,
                    disable_job_creation=True,
                    finish_timeout=_FINISH_TIMEOUT,
                    init_timeout=_INIT_TIMEOUT,
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                ),
            )
        return MirroredRun(made)

    def close(self) -> None:
        """Let the client's own process end. One that misses the word, as was seen beside a server that had gone away,
        would be waited for as long as it lives."""
        service = _service_process()
        patience = threading.Timer(_TEARDOWN_TIMEOUT, service.kill) if service else None
        if patience:
            patience.start()
        with suppress(Exception, SystemExit):  # it leaves with the other process's exit code
            self._wandb.teardown()
        if patience:
            patience.cancel()
        self._folder.cleanup()

    @contextmanager
    def _talking(self) -> Iterator[None]:
        from wandb.sdk.sweeps import SweepNotFoundError

        try:
            with self._lock:
                yield
        except SweepNotFoundError:
            raise
        except Exception as error:  # the client has errors of many kinds for a server that is away
            status, text = _answer(error)
            if status in _UNAUTHORIZED or "invalid credentials" in text:
                message = "the W&B server refuses WANDB_API_KEY; check it, and WANDB_BASE_URL"
            elif status in range(400, 500) and status not in _BUSY:
                message = f"the W&B server refuses the sweep: {text}"
            else:
                raise ServerUnreachableError(f"W&B: {type(error).__name__}: {error}") from error
            raise InvalidStudyError(reasons.SAMPLER_FAILED, message) from None


def _answer(error: BaseException | None) -> tuple[int, str]:
    """HTTP status and text of the server's answer, deep inside of an error of the client's; 0 where there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.http_status or 0), str(response.message)
        error = getattr(error, "exc", None) or error.__cause__
    return 0, ""


@dataclass
class Agent:
    """A sweep's agent: gets its runs from the server, and hears which of them are to stop."""

    client: Client
    ref: SweepRef
    seconds: float = HEARTBEAT_SECONDS
    """Between heartbeats while a run is in hand; at other times they are sent when a run is wanted."""
    ended: str = ""
    """Why the server has no more runs."""
    _suggestions: deque[Suggestion] = field(default_factory=deque)
    _runs: dict[str, bool] = field(default_factory=dict)
    _stopped: set[str] = field(default_factory=set)
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._id = self.client.register_agent(self.ref)

    def has_suggestion(self) -> bool:
        """Whether the server has given a run that is not taken yet; asks it once where it has not."""
        if not self._suggestions and not self.ended:
            self._beat()
        return bool(self._suggestions)

    def check(self) -> None:
        """Ask how the sweep stands, when no runs come.

        Raises:
            ServerUnreachableError: the server does not answer.
        """
        state = self.client.sweep_state(self.ref)
        if state.upper() in {"FINISHED", "CANCELED"}:
            self.ended = f"the W&B sweep {self.ref.sweep} is {state.lower()}"
        else:
            _log.warning("the W&B sweep %s gives no runs; it is %s", self.ref.sweep, state)

    def take(self) -> Suggestion | None:
        """The next run to make; None where the server has given none."""
        return self._suggestions.popleft() if self._suggestions else None

    def hold(self, run: str) -> None:
        """Tell the server from now on that this run is in hand."""
        self._runs[run] = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat_on, name="wandb-agent", daemon=True)
            self._thread.start()

    def release(self, run: str) -> None:
        """The run has ended."""
        self._runs.pop(run, None)
        self._stopped.discard(run)

    def is_stopped(self, run: str) -> bool:
        """Whether the server wants the run stopped."""
        return run in self._stopped

    def close(self) -> None:
        """Send no more heartbeats."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(self.seconds + _TIMEOUT)

    def _beat_on(self) -> None:
        while not self._closed.wait(self.seconds):
            if self._runs:
                with suppress(ServerUnreachableError, InvalidStudyError):
                    self._beat()

    def _beat(self) -> None:
        try:
            commands = self.client.heartbeat(self._id, dict(self._runs))
        except LookupError:
            self.ended = f"the W&B sweep {self.ref.sweep} was deleted"
            return
        for command in commands:
            run = command.get("run_id")
            match command.get("type"):
                case "run" | "resume":
                    self._suggestions.append(Suggestion(str(run), command.get("args") or {}))
                case "stop":
                    self._stopped.add(str(run))
                    self._suggestions = deque(s for s in self._suggestions if s.run != run)
                case "exit":  # W&B's own agent, too, stops what it runs
                    self.ended = f"the W&B sweep {self.ref.sweep} is over"
                    self._stopped |= set(self._runs)


class MirroredRun:
    """A trial as W&B's UI shows it."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Metrics of an evaluation."""
        self._run.log(dict(metrics), step=step, commit=True)  # or the client keeps it back until the next step

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """End it. W&B shows exit code 0 as finished, 255 as killed, any other as failed."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=exit_code)


def load_client() -> ModuleType:
    """Import W&B's client package.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError(f"backend wandb needs the extra wandb (pip install 'hpstudy[wandb]'): {error}") from None
    return wandb
