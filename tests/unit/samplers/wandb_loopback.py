"""A W&B server on the loopback interface: the part of its GraphQL and file-stream protocol that a sweep needs.

The real client package speaks to it; the queries that it sends were recorded, and are told apart by the names of their
fields. Runs are suggested by W&B's own engine, as on the real server.
"""

import base64
import gzip
import json
import random
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from hpstudy.samplers.wandb_engine import load_engine

ENTITY = "team"
KEY = "0123456789abcdef0123456789abcdef01234567"
STATES = {0: "finished", 255: "killed"}


@dataclass
class Run:
    """What the server knows of a run."""

    config: dict[str, Any]
    sweep: str | None = None
    name: str | None = None
    project: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    suggested: bool = False

    @property
    def state(self) -> str:
        return "running" if self.exit_code is None else STATES.get(self.exit_code, "failed")


@dataclass
class Sweep:
    """What it knows of a sweep."""

    config: dict[str, Any]
    project: str
    state: str = "RUNNING"


class WandbServer:
    """Its state, for tests to look at and to steer."""

    def __init__(self) -> None:
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.beats: list[dict[str, bool]] = []
        """Runs in hand, of each heartbeat."""
        self.stops: set[str] = set()
        """Runs that the server wants stopped; a heartbeat that has one of them in hand gets the command."""
        self.commands: deque[dict[str, Any]] = deque()
        """Sent instead of what the engine would suggest."""
        self.paused = False
        self.deleted = False
        self.refusals: dict[str, tuple[int, str]] = {}
        """By GraphQL field the status and message of a refusal."""
        self.stopped = threading.Event()
        """A stop command was sent."""
        self.errors: list[str] = []
        """Of this server's own code; a test that made one fails."""
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                try:
                    with server._lock:
                        status, answer = server.answer(self.path, self.headers.get("Authorization", ""), body)
                except Exception:
                    server.errors.append(traceback.format_exc())
                    status, answer = 400, {"errors": [{"message": "the test's server failed"}]}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # the client's process hangs up when it ends

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def name_in(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Make it the server that the environment names, with nothing of the machine's own W&B settings."""
        for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE", "WANDB_DIR"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", self.url)
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "HOME"):
            monkeypatch.setenv(name, str(folder))

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        if path != "/graphql":
            if path.endswith("/file_stream"):
                self._stream(path.split("/")[-2], json.loads(body))
            return 200, {"exitcode": None, "limits": {}}
        request = json.loads(body)
        query, variables = request["query"], request.get("variables") or {}
        if authorization != "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode():
            return 401, {"errors": [{"message": "user is not logged in"}]}
        for name, (status, message) in self.refusals.items():
            if name in query:
                return status, {"errors": [{"message": message}]}
        if "agentHeartbeat" in query and self.deleted:
            return 404, {"errors": [{"message": "sweep not found"}]}
        return 200, {"data": self._data(query, variables)}

    def _data(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertSweep" in query:
            return {"upsertSweep": self._upsert_sweep(given)}
        if "createAgent" in query:
            agent = f"agent-{len(self.agents)}"
            self.agents[agent] = given["sweep"]
            return {"createAgent": {"agent": {"id": agent}}}
        if "agentHeartbeat" in query:
            commands = self._beat(given["id"], json.loads(given["runState"]))
            return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}
        if "GetSweepState" in query:
            return {"project": {"sweep": {"state": self.sweeps[given["sweep"]].state}}}
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self._upsert_run(given), "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        assert "viewer" in query, query
        teams: dict[str, Any] = {"edges": []}
        return {"viewer": {"id": "user", "entity": ENTITY, "username": "me", "flags": "{}", "teams": teams}}

    def _upsert_sweep(self, given: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = Sweep(yaml.safe_load(given["config"]), given["projectName"])
        return {"sweep": {"name": name, "project": _project(given["projectName"])}, "configValidationWarnings": []}

    def _beat(self, agent: str, in_hand: dict[str, bool]) -> list[dict[str, Any]]:
        self.beats.append(in_hand)
        stops = [run for run in in_hand if run in self.stops]
        if stops:
            self.stopped.set()
            return [{"type": "stop", "run_id": run} for run in stops]
        if self.commands:
            return [self.commands.popleft()]
        if in_hand or self.paused:
            return []
        sweep = self.agents[agent]
        suggested = self._suggest(sweep)
        if suggested is None:
            self.sweeps[sweep].state = "FINISHED"
            return [{"type": "exit"}]
        run = f"run{len(self.runs)}"
        self.runs[run] = Run(suggested, sweep, suggested=True)
        return [{"type": "run", "run_id": run, "args": suggested}]

    def _suggest(self, sweep: str) -> dict[str, Any] | None:
        engine = load_engine()
        config = self.sweeps[sweep].config
        metric = config["metric"]["name"]
        runs = [
            engine.SweepRun(
                state=run.state,
                config=run.config,
                summary_metrics={metric: run.summary[metric]} if metric in run.summary else {},
            )
            for run in self.runs.values()
            if run.sweep == sweep
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numpy.random.seed(len(runs))  # the same suggestions in every test run
            random.seed(len(runs))
            found = engine.next_run(config, runs)
        return None if found is None else json.loads(json.dumps(found.config, default=float))

    def _upsert_run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(given["name"], Run({}))
        config = {key: value for key, value in json.loads(given["config"] or "{}").items() if key != "_wandb"}
        run.config = run.config | config
        run.sweep = given["sweep"] or run.sweep
        run.name = given["displayName"] or run.name
        run.project = given["project"] or run.project
        return {
            "id": given["name"],
            "name": given["name"],
            "displayName": run.name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": run.sweep,
            "historyLineCount": 0,
            "project": _project(run.project),
        }

    def _stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, chunk in sent.get("files", {}).items():
            lines = [json.loads(line) for line in chunk["content"]]
            if file == "wandb-history.jsonl":
                run.history += lines
            elif file == "wandb-summary.json":
                run.summary = lines[-1]
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]

    def start(self) -> None:
        """Serve, in a thread."""
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server for one test."""
    server = WandbServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert not server.errors, "\n".join(server.errors)


def _project(name: Any) -> dict[str, Any]:
    return {"id": "project", "name": name, "entity": {"id": "entity", "name": ENTITY}}
