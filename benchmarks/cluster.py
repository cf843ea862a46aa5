"""python -m benchmarks.cluster [--trials N] [--jobs N] [--rounds N]: a worker group against a Job for each trial.

On the cluster that KUBECONFIG names, with the chart installed. The same trial of a second, which needs torch and
transformers (one_second.py), one after the other: by a study of one worker group, and by a plain Job for each
trial, in the same image with the same resources. Rounds alternate between the two. All of it happens in a namespace of
its own, which is deleted in the end.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.tables import print_table, save
from hpstudy.api.study import API_VERSION, KIND
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

SOURCE = Path(__file__).parent / "one_second.py"
FOLDER = "/opt/benchmark"
RESOURCES = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
TIMEOUT = 900.0  # seconds; for a study or a Job on a machine that is busy with other things
_EVENT = re.compile(r"^(\S+) .* hpstudy (trial|end) \{")
"""A line of a worker's log, with the time that the kubelet put before it."""

VOLUME = {"name": "source", "configMap": {"name": "source"}}
MOUNT = {"name": "source", "mountPath": FOLDER}

STUDY, WHOLE_STUDY = "worker group, one trial", "worker group, whole study / trials"
JOB, CONTAINER = "Job per trial", "Job per trial, its container alone"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of the study, in each round")
    parser.add_argument("--jobs", type=int, default=3, help="in each round")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    seconds: dict[str, list[float]] = {STUDY: [], WHOLE_STUDY: [], JOB: [], CONTAINER: []}
    with Cluster(Path(os.environ["KUBECONFIG"])).namespace("bench") as kubectl:
        source = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "source"}}
        kubectl.apply({**source, "data": {SOURCE.name: SOURCE.read_text()}})
        for number in range(options.rounds):
            name = f"one-second-{number}"
            seconds[WHOLE_STUDY].append(_run_study(kubectl, name, options.trials) / options.trials)
            seconds[STUDY] += _cycles(kubectl.logs(f"job/{name}-0", "--timestamps", "--container=worker"))
            image = _container(kubectl.get("job", f"{name}-0")["spec"])["image"]
            for index in range(options.jobs):
                whole, container = _run_job(kubectl, f"{name}-job-{index}", image)
                seconds[JOB].append(whole)
                seconds[CONTAINER].append(container)
    print_table("A trial of one second that needs torch and transformers", seconds, digits=2)
    per_hour = {row: 3600 / statistics.median(values) for row, values in seconds.items()}
    print("\nTrials an hour: " + "; ".join(f"{row} {rate:.0f}" for row, rate in per_hour.items()))
    print(f"Ratio: {per_hour[STUDY] / per_hour[JOB]:.1f}; pod start left out on both sides "
          f"{per_hour[STUDY] / per_hour[CONTAINER]:.1f}; counted on both sides, in a study of {options.trials} trials, "
          f"{per_hour[WHOLE_STUDY] / per_hour[JOB]:.1f}")  # fmt: skip
    save("cluster", {"seconds": seconds, "trials_an_hour": per_hour, "trials_of_a_study": options.trials})


def _run_study(kubectl: Kubectl, name: str, trials: int) -> float:
    """Seconds from applying the study until it has succeeded."""
    worker = {"name": "worker", "workingDir": FOLDER, "resources": RESOURCES, "volumeMounts": [MOUNT]}
    spec = {
        "objectives": [{"metric": "loss", "direction": "minimize"}],
        "searchSpace": {"parameters": {"x": {"type": "float", "low": 0, "high": 1}}},
        "budget": {"maxTrials": trials},
        "trial": {"function": "one_second:objective"},
        "workers": {"template": {"spec": {"containers": [worker], "volumes": [VOLUME]}}},
    }
    started = time.monotonic()
    kubectl.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec})
    kubectl.wait(f"hps/{name}", "condition=Succeeded", TIMEOUT)
    return time.monotonic() - started


def _cycles(log: str) -> list[float]:
    """Seconds from the start of each trial to the start of the next."""
    events = [match for line in log.splitlines() if (match := _EVENT.match(line))]
    starts = [_time(match[1]) for match in events if match[2] == "trial"]
    return [later - earlier for earlier, later in pairwise(starts)]


def _run_job(kubectl: Kubectl, name: str, image: str) -> tuple[float, float]:
    """Seconds from creating the Job until it is complete, and from its container's start to its end (the kubelet
    writes whole seconds)."""
    container = {
        "name": "trial",
        "image": image,
        "command": ["python", f"{FOLDER}/{SOURCE.name}"],
        "resources": RESOURCES,
        "securityContext": SECURITY,
        "volumeMounts": [MOUNT],
    }
    pod = {"restartPolicy": "Never", "securityContext": POD_SECURITY, "containers": [container], "volumes": [VOLUME]}
    started = time.monotonic()
    kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                   "spec": {"template": {"spec": pod}}})  # fmt: skip
    kubectl.wait(f"job/{name}", "condition=Complete", TIMEOUT)
    seconds = time.monotonic() - started
    (done,) = kubectl.list("pods", f"job-name={name}")
    ended = done["status"]["containerStatuses"][0]["state"]["terminated"]
    return seconds, _time(ended["finishedAt"]) - _time(ended["startedAt"])


def _container(job: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = job["template"]["spec"]["containers"]
    return containers[0]


def _time(stamp: str) -> float:
    # Nanoseconds are more than a datetime takes.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", stamp).replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    main()
