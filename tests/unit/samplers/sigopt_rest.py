"""A sigopt-server on the loopback interface: its REST protocol and its refusals, with random suggestions.

After https://github.com/sigopt/sigopt-server: routes of ``zigopt/api/v1/routes.py``, bodies of ``zigopt/json/builder``,
checks of ``zigopt/handlers``. Ids are numbers that go as texts, markers of pages are opaque.
"""

import base64
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "TOKENOFTHETESTS"
_EXPERIMENT_FIELDS = {
    "name", "project", "type", "observation_budget", "metrics", "parameters", "conditionals", "linear_constraints",
    "metadata", "num_solutions", "parallel_bandwidth", "tasks", "runs_only", "budget",
}  # fmt: skip
_OBSERVATION_FIELDS = {"suggestion", "assignments", "values", "failed", "no_optimize", "metadata", "task"}
_PARAMETER_FIELDS = {
    "name", "type", "bounds", "grid", "categorical_values", "transformation", "prior", "conditions", "default_value",
}  # fmt: skip


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Experiment:
    """An experiment with all that belongs to it."""

    body: dict[str, Any]
    suggestions: dict[str, dict[str, Any]] = field(default_factory=dict)
    observations: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def open_suggestions(self) -> list[dict[str, Any]]:
        closed = {observation["suggestion"] for observation in self.observations.values()}
        return [s for s in self.suggestions.values() if not s["deleted"] and s["id"] not in closed]

    @property
    def by_trial(self) -> dict[int, dict[str, Any]]:
        """Observations by the trial in their metadata; two of one trial are an error."""
        found = {int(o["metadata"]["trial"]): o for o in self.observations.values()}
        assert len(found) == len(self.observations)
        return found


class SigOptRest:
    """The server's memory and what it answers."""

    def __init__(self) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.requests: list[tuple[str, str]] = []
        self.broken: Callable[[str, str], int | None] = lambda method, path: None
        """Status to answer with instead; 0: what is asked is done, and the connection ends without an answer."""
        self.page = 1000
        self.url = ""
        self._last = 100
        self._random = random.Random(1)
        self._lock = threading.Lock()

    def handle(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.requests.append((method, path))
            for pattern, handlers in _ROUTES.items():
                found = re.fullmatch(pattern, path)
                if found and method in handlers:
                    owner, *rest = [*found.groups(), ""]
                    if owner and owner not in self.experiments:
                        raise RefusedError(404, f"No experiment {owner}")
                    parts = [self.experiments[owner], *rest[:-1]] if owner else []
                    return handlers[method](self, *parts, body if method in ("POST", "PUT") else query)
        raise RefusedError(404, "Not found")

    def create_experiment(self, body: dict[str, Any]) -> dict[str, Any]:
        _check(not (unknown := body.keys() - _EXPERIMENT_FIELDS), f"Unknown json keys {unknown}")
        _check(isinstance(body.get("name"), str) and 1 <= len(body["name"]) <= 100, "name")
        _check(body.get("type") in (None, "offline", "random", "grid"), "Invalid experiment type")
        metrics = body["metrics"]
        _check(all(m.keys() <= {"name", "objective", "strategy", "threshold"} for m in metrics), "metrics")
        _check(len(metrics) <= 2, "Experiments must have at most 2 optimized metrics")
        _check(len(metrics) == 1 or bool(body.get("observation_budget")), "observation_budget is required")
        conditionals = {c["name"]: c["values"] for c in body.get("conditionals", [])}
        names = [parameter["name"] for parameter in body["parameters"]]
        _check(bool(names), "Experiments must have at least one parameter.")
        _check(len({*names, *conditionals}) == len(names) + len(conditionals), "Duplicate parameter name")
        for parameter in body["parameters"]:
            _check_parameter(parameter, conditionals)
        for constraint in body.get("linear_constraints", []):
            _check(constraint.keys() == {"type", "terms", "threshold"}, "linear_constraints")
            _check(all(term["name"] in names for term in constraint["terms"]), "is not a known parameter")
        made = {"object": "experiment", "id": self._id(), "state": "active", "conditionals": [], **body}
        self.experiments[made["id"]] = Experiment(made)
        return made

    def update_experiment(self, experiment: Experiment, body: dict[str, Any]) -> dict[str, Any]:
        _check(body.keys() <= {"observation_budget", "parallel_bandwidth", "name", "state"}, "cannot be updated")
        is_front = len(experiment.body["metrics"]) > 1
        _check(not (is_front and "observation_budget" in body), "`observation_budget` cannot be updated")
        experiment.body |= body
        return experiment.body

    def fetch_experiment(self, experiment: Experiment, query: dict[str, str]) -> dict[str, Any]:
        return experiment.body

    def create_suggestion(self, experiment: Experiment, body: dict[str, Any]) -> dict[str, Any]:
        _check(experiment.body["state"] == "active", "Cannot create suggestions for deleted experiment")
        made = {
            "object": "suggestion",
            "id": self._id(),
            "experiment": experiment.body["id"],
            "state": "open",
            "deleted": False,
            "metadata": _metadata(body),
            "assignments": self._draw(experiment.body),
        }
        experiment.suggestions[made["id"]] = made
        return made

    def list_suggestions(self, experiment: Experiment, query: dict[str, str]) -> dict[str, Any]:
        _check(query.get("state") in (None, "open"), "Invalid state")
        shown = experiment.open_suggestions if query.get("state") else list(experiment.suggestions.values())
        return self._pages(shown, query)

    def delete_suggestion(self, experiment: Experiment, suggestion: str, query: dict[str, str]) -> dict[str, Any]:
        if suggestion not in experiment.suggestions:
            raise RefusedError(404, f"No suggestion {suggestion}")
        experiment.suggestions[suggestion]["deleted"] = True
        return {}

    def list_observations(self, experiment: Experiment, query: dict[str, str]) -> dict[str, Any]:
        return self._pages(list(experiment.observations.values()), query)

    def create_observation(self, experiment: Experiment, body: dict[str, Any]) -> dict[str, Any]:
        _check(experiment.body["state"] == "active", "Cannot create observations for deleted experiment")
        _check(not (unknown := body.keys() - _OBSERVATION_FIELDS), f"Unknown keys {unknown}")
        _check(("suggestion" in body) != ("assignments" in body), "Must provide exactly one of suggestion, assignments")
        failed, values = body.get("failed", False), body.get("values")
        _check(not (failed and values), "Cannot provide `values` if observation has failed")
        if not failed:
            names = [metric["name"] for metric in experiment.body["metrics"]]
            _check([value["name"] for value in values or []] == names, "Missing required json key value")
        suggestion = body.get("suggestion")
        if suggestion is not None:
            _check(suggestion in experiment.suggestions, f"No suggestion: {suggestion}")
            _check(not experiment.suggestions[suggestion]["deleted"], f"No suggestion: {suggestion}")
            assignments = experiment.suggestions[suggestion]["assignments"]
        else:
            assignments = body["assignments"]
            _check_assignments(assignments, experiment.body)
        made = {
            "object": "observation",
            "id": self._id(),
            "experiment": experiment.body["id"],
            "assignments": assignments,
            "suggestion": suggestion,
            "failed": failed,
            "values": values,
            "metadata": _metadata(body),
        }
        experiment.observations[made["id"]] = made
        return made

    def _id(self) -> str:
        self._last += 1
        return str(self._last)

    def _pages(self, items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        """The latest first; ``before`` leads to older ones."""
        limit = int(query.get("limit", self.page))
        _check(limit <= 1000, "Exceeded maximum limit: 1000")
        limit = min(limit, self.page)
        newest = sorted(items, key=lambda item: int(item["id"]), reverse=True)
        if "before" in query:
            last = int(base64.urlsafe_b64decode(query["before"]))
            newest = [item for item in newest if int(item["id"]) < last]
        shown = newest[:limit]
        marker = base64.urlsafe_b64encode(shown[-1]["id"].encode()).decode() if len(newest) > limit else None
        return {
            "object": "pagination",
            "count": len(items),
            "data": shown,
            "paging": {"before": marker, "after": None},
        }

    def _draw(self, body: dict[str, Any]) -> dict[str, Any]:
        drawn = {c["name"]: self._random.choice(c["values"]) for c in body["conditionals"]}
        for parameter in body["parameters"]:
            if not _exists(parameter, drawn):
                continue
            if parameter["type"] == "categorical":
                drawn[parameter["name"]] = self._random.choice(parameter["categorical_values"])
            elif "grid" in parameter:
                drawn[parameter["name"]] = self._random.choice(parameter["grid"])
            elif parameter["type"] == "int":
                drawn[parameter["name"]] = self._random.randint(parameter["bounds"]["min"], parameter["bounds"]["max"])
            else:
                drawn[parameter["name"]] = self._random.uniform(parameter["bounds"]["min"], parameter["bounds"]["max"])
        return drawn


_ROUTES: dict[str, dict[str, Callable[..., dict[str, Any]]]] = {
    r"/v1/experiments": {"POST": SigOptRest.create_experiment},
    r"/v1/experiments/(\d+)": {"GET": SigOptRest.fetch_experiment, "PUT": SigOptRest.update_experiment},
    r"/v1/experiments/(\d+)/suggestions": {
        "POST": SigOptRest.create_suggestion,
        "GET": SigOptRest.list_suggestions,
    },
    r"/v1/experiments/(\d+)/suggestions/(\d+)": {"DELETE": SigOptRest.delete_suggestion},
    r"/v1/experiments/(\d+)/observations": {
        "POST": SigOptRest.create_observation,
        "GET": SigOptRest.list_observations,
    },
}


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise RefusedError(400, message)


def _metadata(body: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = body.get("metadata") or {}
    _check(all(v is None or type(v) in (str, int, float) for v in metadata.values()), "metadata")
    return metadata


def _check_parameter(parameter: dict[str, Any], conditionals: dict[str, list[str]]) -> None:
    name, kind = parameter["name"], parameter["type"]
    _check(not (unknown := parameter.keys() - _PARAMETER_FIELDS), f"Unknown json keys {unknown}")
    _check(kind in ("double", "int", "categorical"), f"Invalid param_type: {kind}")
    if kind == "categorical":
        values = parameter["categorical_values"]
        _check(len(set(values)) == len(values) >= 2, f"Categorical parameter {name} should have at least 2 values")
        _check(all(isinstance(v, str) and 0 < len(v) <= 50 for v in values), "categorical value")
        _check("bounds" not in parameter and "grid" not in parameter, "cannot have `bounds`")
    else:
        values = parameter.get("grid") or list(parameter["bounds"].values())
        _check(("grid" in parameter) != ("bounds" in parameter), f"Parameter {name} must have `bounds`")
        _check(all(type(v) is int or (type(v) is float and kind == "double") for v in values), f"type of {name}")
        _check(min(values) < max(values), "Invalid bounds: max must be greater than min")
        _check(kind == "double" or not parameter.get("transformation"), "Transformation is only valid for `double`")
        _check(parameter.get("transformation") != "log" or min(values) > 0, "bounds must be positive")
    for conditional, allowed in parameter.get("conditions", {}).items():
        _check(conditional in conditionals, f"non-existent conditional {conditional}")
        _check(set(allowed) <= set(conditionals[conditional]), "attempted to use non-existent value")


def _exists(parameter: dict[str, Any], assignments: dict[str, Any]) -> bool:
    return all(assignments[name] in values for name, values in parameter.get("conditions", {}).items())


def _check_assignments(assignments: dict[str, Any], body: dict[str, Any]) -> None:
    for conditional in body["conditionals"]:
        _check(assignments.get(conditional["name"]) in conditional["values"], "Missing assignment for conditional")
    for parameter in body["parameters"]:
        name, value = parameter["name"], assignments.get(parameter["name"])
        if not _exists(parameter, assignments):
            _check(value is None, f"Do not provide assignment for unsatisfied parameter: {name}")
            continue
        _check(value is not None, f"Missing assignment for parameter: {name}")
        if parameter["type"] == "categorical":
            _check(value in parameter["categorical_values"], f"Invalid value for categorical parameter {name}: {value}")
            continue
        _check(type(value) in (int, float), f"Invalid type for {name}")
        _check(parameter["type"] == "double" or type(value) is int, f"Invalid type for {name}: expected integer")
        _check("grid" not in parameter or value in parameter["grid"], f"Invalid value for grid parameter {name}")
    for constraint in body.get("linear_constraints", []):
        total = sum(term["weight"] * assignments[term["name"]] for term in constraint["terms"])
        low, high = sorted((total, constraint["threshold"]))
        holds = (low == total) if constraint["type"] == "less_than" else (high == total)
        _check(holds, "Assignments do not satisfy constraint")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rest: SigOptRest

    def _answer(self) -> None:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        given = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        broken = self.rest.broken(self.command, split.path)
        try:
            if given != f"{TOKEN}:":
                raise RefusedError(403, "This endpoint requires a valid API token.")
            if broken:
                raise RefusedError(broken, "broken")
            status, answer = 200, self.rest.handle(self.command, split.path, dict(parse_qsl(split.query)), body)
        except RefusedError as error:
            status, answer = error.status, {"message": str(error)}
        if broken == 0:
            self.close_connection = True
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Nothing: requests are in ``rest.requests``."""


@contextmanager
def serving() -> Iterator[SigOptRest]:
    """A server for a test."""
    rest = SigOptRest()
    handler = type("Handler", (_Handler,), {"rest": rest})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        rest.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield rest
        finally:
            server.shutdown()
            thread.join()
