"""The pod of a command: the user's image untouched, the worker and its secrets beside it."""

import json
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy_operator.builders import build_config_map, build_worker_job, check_template
from hpstudy_operator.final_job import build_final_job
from hpstudy_operator.groups import Group
from tests.unit.operator.objects import IMAGE, SECRET, study

PROGRAM = {
    "name": "worker",
    "image": "julia:1",
    "workingDir": "/work",
    "env": [{"name": "THREADS", "value": "2"}],
    "resources": {"limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 2}},
    "securityContext": {"runAsUser": 1000, "runAsGroup": 100},
    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
}
SECRET_URL = {"name": "HPSTUDY_STORAGE_URL", "valueFrom": {"secretKeyRef": {"name": "storage", "key": "url"}}}
GRACE = {"name": "HPSTUDY_GRACE_SECONDS", "value": "30"}


def command(*containers: dict[str, Any], workers: dict[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    template = {"spec": {"containers": list(containers), **pod}}
    return study(trial={"command": {"argv": ["run"]}}, workers={"template": template, **(workers or {})})


def job(resource: dict[str, Any]) -> dict[str, Any]:
    return build_worker_job(resource, 0, image=IMAGE, storage=SECRET)["spec"]


def pod(resource: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job(resource)["template"]["spec"]
    return found


def test_the_program_is_a_sidecar_that_keeps_what_it_has() -> None:
    spec = pod(command(PROGRAM, {"name": "proxy", "image": "proxy:1"}, initContainers=[{"name": "data"}]))
    assert [each["name"] for each in spec["containers"]] == ["hpstudy", "proxy"]
    assert [each["name"] for each in spec["initContainers"]] == ["hpstudy-agent", "data", "worker"]
    program = spec["initContainers"][2]
    assert program["restartPolicy"] == "Always"
    assert program["command"] == ["/bin/sh", "/hpstudy/command_agent.sh", "/hpstudy"]
    kept = ("image", "workingDir", "env", "resources")
    assert {key: program[key] for key in kept} == {key: PROGRAM[key] for key in kept}
    assert {"name": "scratch", "mountPath": "/tmp"} in program["volumeMounts"]
    paths = [mount["mountPath"] for mount in program["volumeMounts"]]
    assert sorted(paths) == ["/dev/shm", "/hpstudy", "/tmp"]
    assert {mount["name"] for mount in program["volumeMounts"]} - {each["name"] for each in spec["volumes"]} == {
        "scratch"
    }


def test_the_worker_has_a_container_of_its_own_which_alone_has_the_secret_and_decides_how_the_pod_ends() -> None:
    resource = command(PROGRAM)
    spec = pod(resource)
    (worker,) = spec["containers"]
    assert (worker["name"], worker["image"], worker["command"]) == ("hpstudy", IMAGE, ["hpstudy"])
    assert worker["args"][-2:] == ["--output", "/hpstudy/output"]
    assert worker["env"] == [{"name": "HPSTUDY_AGENT", "value": "/hpstudy"}, SECRET_URL, GRACE]
    assert "limits" not in worker["resources"], "GPUs are the program's"
    assert "secretKeyRef" not in json.dumps(spec["initContainers"])
    assert "/etc/hpstudy" not in json.dumps(spec["initContainers"])
    rules = job(resource)["podFailurePolicy"]["rules"]
    (fail,) = [rule for rule in rules if rule["action"] == "FailJob"]
    assert fail["onExitCodes"]["containerName"] == "hpstudy"
    agent = spec["initContainers"][0]
    assert (agent["image"], agent["command"]) == (IMAGE, ["hpstudy", "agent", "/hpstudy"])


def test_both_meet_the_restricted_standard_as_one_user() -> None:
    spec = pod(command(PROGRAM))
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["securityContext"] == {
            "runAsUser": 1000,
            "runAsGroup": 100,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_a_container_of_the_workers_name_changes_the_worker() -> None:
    key = {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}}}
    own = {"name": "hpstudy", "image": "runner:mine", "env": [key], "resources": {"limits": {"memory": "1Gi"}}}
    spec = pod(command(own, PROGRAM))
    (worker,) = spec["containers"]
    assert (worker["image"], worker["resources"]) == ("runner:mine", own["resources"])
    assert worker["env"] == [key, {"name": "HPSTUDY_AGENT", "value": "/hpstudy"}, SECRET_URL, GRACE]
    assert spec["initContainers"][0]["image"] == "runner:mine"
    assert spec["initContainers"][1]["image"] == "julia:1"


def test_without_a_template_the_program_runs_in_the_runners_image() -> None:
    resource = study(trial={"command": {"argv": ["run"]}})
    assert [each["image"] for each in pod(resource)["initContainers"]] == [IMAGE, IMAGE]
    check_template(resource)


OURS = {"name": "hpstudy", "image": "runner:mine", "resources": {"limits": {"cpu": "8", "nvidia.com/gpu": 4}}}
TRAIN = {"name": "train", "image": "train:1", "resources": {"limits": {"cpu": "2", "nvidia.com/gpu": 1}}}
BARE = {"name": "train", "image": "train:1"}
CPUS = {"name": "train", "image": "train:1", "resources": {"limits": {"cpu": "2"}}}


@pytest.mark.parametrize(
    ("containers", "gpus", "auto", "image"),
    [
        ([], 0, 1, IMAGE),
        ([OURS], 0, 1, IMAGE),
        ([TRAIN], 1, 1, "train:1"),
        ([OURS, TRAIN], 1, 1, "train:1"),
        ([TRAIN, OURS], 1, 1, "train:1"),
        ([OURS, CPUS], 0, 2, "train:1"),
        ([OURS, BARE], 0, 1, "train:1"),
        ([OURS, {"name": "proxy", "image": "proxy:1"}, PROGRAM], 2, 1, "julia:1"),
    ],
)
def test_whose_gpus_cpus_and_image_count_is_the_programs_container(
    containers: list[dict[str, Any]], gpus: int, auto: int, image: str
) -> None:
    final = {"template": {"spec": {"template": {"spec": {"containers": [{"name": "final"}]}}}}}
    resource = command(*containers, workers={"trialsPerPod": "auto"})
    resource["spec"] |= {"onSuccess": final, "budget": {"maxTrials": 1, "gpuHours": 1}}
    if gpus:
        check_template(resource)
    else:
        with pytest.raises(InvalidStudyError, match="has no limit of GPUs"):
            check_template(resource)
    spec = pod(resource)
    told = ["--gpus", str(gpus)] if gpus else []
    assert spec["containers"][0]["args"][7:-2] == told
    assert next(each for each in spec["initContainers"] if "restartPolicy" in each)["image"] == image
    resolved = json.loads(build_config_map(resource)["data"]["study.json"])["spec"]["workers"]
    assert resolved["trialsPerPod"] == auto
    (container,) = build_final_job(resource, {}, image=IMAGE)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


@pytest.mark.parametrize(
    ("resources", "asked", "count"),
    [
        ({}, None, 1),
        ({}, "auto", 1),
        ({"limits": {"cpu": "4"}}, "auto", 4),
        ({"requests": {"cpu": "2500m"}}, "auto", 2),
        ({"limits": {"cpu": "250m"}}, "auto", 1),
        ({"limits": {"cpu": 4, "nvidia.com/gpu": 1}}, "auto", 1),
        ({"limits": {"nvidia.com/gpu": 1}}, 3, 3),
        ({"limits": {"nvidia.com/gpu": 4}}, 1, 1),
    ],
)
def test_one_process_a_node_and_as_many_side_by_side_as_there_is_room(
    resources: dict[str, Any], asked: Any, count: int
) -> None:
    workers = {} if asked is None else {"trialsPerPod": asked}
    resource = command({"name": "worker", "resources": resources}, workers=workers)
    resolved = json.loads(build_config_map(resource)["data"]["study.json"])["spec"]["workers"]
    assert (resolved["processesPerNode"], resolved["trialsPerPod"]) == (1, count)


def test_programs_side_by_side_cannot_share_out_gpus() -> None:
    gpus = {"name": "worker", "resources": {"limits": {"nvidia.com/gpu": 4}}}
    with pytest.raises(InvalidStudyError, match="would all take the first of its 4 GPUs"):
        check_template(command(gpus, workers={"trialsPerPod": 2}))


def test_how_the_program_was_stopped_is_not_how_the_worker_ended() -> None:
    """Kubernetes ends a sidecar after the worker, perhaps with a signal."""
    made = build_worker_job(command(PROGRAM), 0, image=IMAGE, storage=SECRET)
    made["metadata"]["creationTimestamp"] = "2026-03-01T12:00:00Z"
    conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    made["status"] = {"conditions": conditions}
    ended = {"state": {"terminated": {"exitCode": 137, "finishedAt": "2026-03-01T12:00:00Z"}}}
    crashed = {"state": {"terminated": {"exitCode": 1, "finishedAt": "2026-03-01T12:00:00Z", "message": "no memory"}}}
    one = {"metadata": {"name": "reviews-0-0"}, "spec": pod(command(PROGRAM))}

    def failure(worker: dict[str, Any]) -> str:
        status = {"containerStatuses": [{"name": "hpstudy", **worker}]}
        status["initContainerStatuses"] = [{"name": "worker", **ended}]
        return Group(0, made, ({**one, "status": status},)).failure().message

    assert "no memory" in failure(crashed)
    assert "137" not in failure({"state": {"terminated": {"exitCode": 0}}})
