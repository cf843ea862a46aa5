"""An operator as a process of its own, and a team's namespace in which a test plays user, worker and kubelet."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import optuna
from prometheus_client.parser import text_string_to_metric_families

from hpstudy.api.load import parse_study
from hpstudy.api.names import stored_study_name
from hpstudy.storage.opening import open_storage
from tests.api.client import PATHS, Api, Resource, Writes
from tests.support.kubectl import Kubectl
from tests.support.processes import free_port, start, stop, wait_until

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds until something counts as not happening. It takes two or three; a machine that is busy with other things may
need ten times that."""
QUIET = 3.0
"""Seconds in which an operator that wants to write would have done it: several passes are provoked in them."""
BETWEEN = 0.5
"""Seconds between two looks or two passes; a pass takes a tenth of that."""
CALM = 2.0
"""Seconds without a write after which what went before is over: on a busy machine a pass takes half of one."""
RUNNER_IMAGE = "runner:test"


def study(name: str = "reviews", **spec: Any) -> Resource:
    """A study of ten trials as a user would write it; a None removes a field."""
    fields = {
        "objectives": [{"metric": "eval_f1", "direction": "maximize"}],
        "searchSpace": {"parameters": {"lr": {"type": "float", "low": 0.001, "high": 0.1}}},
        "budget": {"maxTrials": 10},
        "trial": {"function": "train:objective"},
        **spec,
    }
    return {
        "apiVersion": "hpstudy.io/v1alpha1",
        "kind": "HPStudy",
        "metadata": {"name": name},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def eventually(look: Callable[[], T | None], what: str) -> T:
    """What ``look`` returns once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.05)
    return found


class Operator:
    """An operator that may be killed and started again."""

    def __init__(
        self, kubeconfig: Path, database_url: str, log: Path, *, pod: str = "operator", **environment: str
    ) -> None:
        """
        Args:
            pod: the replica's name: who holds the Lease.
            environment: more of it, or other values.
        """
        self.log = log
        self.pod = pod
        self.port = free_port()
        self._environment = {
            "KUBECONFIG": str(kubeconfig),
            "HPSTUDY_DATABASE_URL": database_url,
            "HPSTUDY_RUNNER_IMAGE": RUNNER_IMAGE,
            "HPSTUDY_HEALTH_PORT": str(self.port),
            "HPSTUDY_LEASE": "hpstudy-system/hpstudy",
            "HPSTUDY_POD": pod,
            **environment,
        }
        self.program: tuple[str | Path, ...] = (Path(sys.executable).with_name("hpstudy-operator"),)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start."""
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        self._process = start(["env", *variables, *self.program], self.log)

    def wait_until_ready(self) -> None:
        """Return when it says so."""
        assert self._process is not None
        wait_until(lambda: self.probe("readyz") == 200, self._process, self.log)

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit status."""
        assert self._process is not None
        stop(self._process, how)
        return int(self._process.returncode)

    def send(self, how: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(how)

    def end(self) -> int:
        """Wait until it has ended; returns its exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def probe(self, path: str = "healthz") -> int:
        """The status that a probe gets; 0 without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=2) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def metrics(self) -> dict[str, float]:
        """What Prometheus would read, by name and labels as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            samples = [sample for family in families for sample in family.samples]
        return {
            s.name
            + ("{" + ",".join(f"{k}={v}" for k, v in sorted(s.labels.items())) + "}" if s.labels else ""): s.value
            for s in samples
        }


@dataclass(frozen=True)
class Team:
    """A namespace of a test's own."""

    namespace: str
    api: Api
    kubectl: Kubectl

    def apply(self, *manifests: Resource | str) -> None:
        """As ``kubectl apply``."""
        self.kubectl.apply(*manifests)

    def study(self, name: str = "reviews") -> Resource:
        """The study as it is."""
        found = self.api.find("hpstudies", self.namespace, name)
        assert found is not None
        return found

    def status(self, name: str = "reviews") -> Resource:
        """Its status; empty at first."""
        return dict(self.study(name).get("status") or {})

    def condition(self, kind: str, name: str = "reviews") -> Resource:
        """A condition; empty when it is not there."""
        conditions = self.status(name).get("conditions", [])
        return next((dict(c) for c in conditions if c["type"] == kind), {})

    def until(self, kind: str, status: str, reason: str = "", name: str = "reviews") -> Resource:
        """Wait for a condition about the study as it is written now."""

        def look() -> Resource | None:
            found, generation = self.condition(kind, name), self.study(name)["metadata"]["generation"]
            good = found.get("status") == status and found["observedGeneration"] == generation
            return found if good and reason in {"", found["reason"]} else None

        try:
            return eventually(look, f"{kind}={status} {reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {json.dumps(self.status(name), indent=1)}") from None

    def poke(self, name: str = "reviews") -> None:
        """Make the operator look now: tests need not wait for its poll."""
        value = str(time.monotonic())
        self.api.patch("hpstudies", self.namespace, name, {"metadata": {"annotations": {"test/poke": value}}})

    def edit(self, spec: Resource, name: str = "reviews") -> None:
        """Merge into the study's spec."""
        self.api.patch("hpstudies", self.namespace, name, {"spec": spec})

    def names(self, kind: str) -> list[str]:
        """Names of the objects of a kind."""
        return sorted(found["metadata"]["name"] for found in self.api.list(kind, self.namespace))

    def until_names(self, kind: str, *names: str) -> None:
        """Wait until these and no others exist."""
        eventually(lambda: self.names(kind) == sorted(names), f"{kind} {names}")

    def job(self, name: str = "reviews-0") -> Resource:
        """A Job, once it exists."""
        return eventually(lambda: self.api.find("jobs", self.namespace, name), f"Job {name}")

    def pods(self, job: str = "reviews-0", count: int = 1) -> list[Resource]:
        """The pods that the Job controller made, once they exist."""

        def look() -> list[Resource] | None:
            uid = self.job(job)["metadata"]["uid"]  # a Job may be replaced meanwhile
            found = [
                pod
                for pod in self.api.list("pods", self.namespace)
                if pod["metadata"]["ownerReferences"][0]["uid"] == uid and "deletionTimestamp" not in pod["metadata"]
            ]
            return found if len(found) == count else None

        return eventually(look, f"{count} pods of {job}")

    def run_pods(self, job: str = "reviews-0", count: int = 1) -> None:
        """As the kubelet: the pods are ready."""
        for pod in self.pods(job, count):
            status = container(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
            conditions = [{"type": "Ready", "status": "True"}]
            self.set_pod(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [status]})

    def end_pods(self, code: int, message: str = "", job: str = "reviews-0", count: int = 1) -> None:
        """As the kubelet: the worker ended."""
        terminated = {"exitCode": code, "message": message, "finishedAt": "2026-01-01T00:00:00Z", "reason": "Error"}
        for pod in self.pods(job, count):
            status = container(pod, {"terminated": terminated})
            self.set_pod(pod, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]})

    def hold_pods(self, reason: str, message: str, job: str = "reviews-0") -> None:
        """As the kubelet: the worker cannot start."""
        for pod in self.pods(job):
            waiting = {"waiting": {"reason": reason, "message": message}}
            self.set_pod(pod, {"phase": "Pending", "containerStatuses": [container(pod, waiting)]})

    def set_pod(self, pod: Resource, status: Resource) -> None:
        """Set a pod's status."""
        self.api.patch("pods", self.namespace, pod["metadata"]["name"], {"status": status})

    def secret(self, name: str = "hpstudy-storage", key: str = "url") -> str:
        """A value of a Secret, once it exists."""
        found = eventually(lambda: self.api.find("secrets", self.namespace, name), f"Secret {name}")
        return b64decode(found["data"][key]).decode()

    @contextlib.contextmanager
    def trials(self, name: str = "reviews", url: str = "") -> Iterator[optuna.Study]:
        """The study in its storage, as a worker opens it."""
        storage = open_storage(url or self.secret())
        stored = stored_study_name(parse_study(self.study(name)).metadata)
        try:
            yield optuna.load_study(study_name=stored, storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
        finally:
            storage.engine.dispose()

    def complete(self, *values: float | list[float], name: str = "reviews") -> None:
        """As a worker: run trials that end with these values."""
        with self.trials(name) as trials:
            for value in values:
                trial = trials.ask()
                trial.suggest_float("lr", 0.001, 0.1)
                trial.set_user_attr("hpstudy:group", 0)
                trials.tell(trial, value)

    def versions(self) -> dict[tuple[str, str], str]:
        """Resource versions of everything in the namespace, events included: equal means that nothing changed."""
        found = {kind: self.api.list(kind, self.namespace) for kind in PATHS}
        return {
            (kind, resource["metadata"]["name"]): resource["metadata"]["resourceVersion"]
            for kind, resources in found.items()
            for resource in resources
        }

    def stays_quiet(self, name: str = "reviews") -> None:
        """Assert that passes are made and operators write nothing here, not even what would change nothing.

        Kubernetes' own controllers may be late, and what they write is a reason to look and to write: only a time in
        which they write nothing counts.
        """

        def calm() -> int | None:
            since = self.api.audited()
            time.sleep(CALM)
            return None if any(self.api.written(self.namespace, since)) else since

        def watched() -> Writes | None:
            since = eventually(calm, "calm")
            deadline = time.monotonic() + QUIET
            while time.monotonic() < deadline:
                self.poke(name)
                time.sleep(BETWEEN)
            found = self.api.written(self.namespace, since)
            return None if found.by_controllers else found

        self.poke(name)
        written = eventually(watched, "a time without controllers").by_operators
        assert not written, written
        assert self.api.written(self.namespace, 0).by_operators, "it is the log of what is written"


def container(pod: Resource, state: Resource) -> Resource:
    """A container's status, as the kubelet reports it."""
    spec = pod["spec"]["containers"][0]
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }
