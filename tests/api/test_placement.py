"""Where worker groups run: what the pod template says reaches the pods, and who queues Jobs may hold them back."""

from typing import Any

import pytest

from tests.api.harness import Team, eventually, study

QUEUE = "kueue.x-k8s.io/queue-name"
GROUP_IN_A_RACK = {
    "topologyKey": "rack",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "hpstudy-operator"}},
    "matchLabelKeys": ["hpstudy.io/study", "hpstudy.io/group"],
}
POD: dict[str, Any] = {
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [GROUP_IN_A_RACK]}},
    "topologySpreadConstraints": [{**GROUP_IN_A_RACK, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "research",
    "schedulerName": "volcano",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "containers": [
        {
            "name": "worker",
            "image": "mine:1",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "resources": {"limits": {"nvidia.com/gpu": "2"}},
        },
        {"name": "log", "image": "log:1", "command": ["tail"], "args": ["-f", "/dev/null"]},
    ],
}
HELD_BACK = [
    {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "queue"},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
                "objectSelector": {"matchExpressions": [{"key": QUEUE, "operator": "Exists"}]},
            },
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{spec: Object.spec{suspend: true}}"},
                }
            ],
        },
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "queue"},
        "spec": {"policyName": "queue"},
    },
]
"""What Kueue's webhook does to a Job with its label."""


def contains(live: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; the API server adds defaults."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(contains(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return all(any(contains(each, value) for each in live or []) for value in wanted)
    return bool(live == wanted)


def test_all_that_a_template_says_reaches_the_pods(served: Team) -> None:
    served.kubectl("label", "namespace", served.namespace, "pod-security.kubernetes.io/enforce=restricted")
    served.kubectl.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "research"}, "value": 7}
    )
    metadata = {"labels": {"team": "nlp"}, "annotations": {"sidecar.istio.io/inject": "false"}}
    served.apply(study(workers={"nodes": 2, "template": {"metadata": metadata, "spec": POD}}))
    for pod in served.pods(count=2):
        assert contains(pod["spec"], POD)
        assert contains(pod["metadata"], metadata)
        assert pod["spec"]["priority"] == 7
        assert pod["spec"]["automountServiceAccountToken"] is False
    served.stays_quiet()  # what the API server added to the template is no difference


@pytest.mark.parametrize(
    ("container", "spec", "complaint"),
    [
        ({"resources": {"requests": {"nvidia.com/gpu": 1}}}, {}, "Limit must be set for non overcommitable resources"),
        ({"command": ["python", "train.py"]}, {}, "command of container 'worker': remove it"),
        ({}, {"restartPolicy": "OnFailure"}, "restartPolicy 'OnFailure': remove it"),
    ],
)
def test_a_template_that_cannot_be_is_refused_in_words(
    served: Team, container: dict[str, Any], spec: dict[str, Any], complaint: str
) -> None:
    worker = {"name": "worker", "image": "mine:1", **container}
    served.apply(study(workers={"template": {"spec": {"containers": [worker], **spec}}}))
    accepted = served.until("Accepted", "False", "InvalidTemplate")
    assert complaint in accepted["message"]
    assert served.names("jobs") == []


def test_a_queued_group_waits_to_be_admitted_as_a_whole_and_keeps_what_the_queue_gives_it(served: Team) -> None:
    """As Kueue does: suspended on the way in, started with the node selector of a flavour, evicted, started again."""
    served.kubectl.apply(*HELD_BACK)
    served.kubectl("wait", "--for=jsonpath={.metadata.name}=queue", "mutatingadmissionpolicy/queue", "--timeout=20s")
    eventually(lambda: _is_held_back(served), "the policy")
    manifest = study(workers={"nodes": 2})
    manifest["metadata"]["labels"] = {QUEUE: "gpus"}
    served.apply(manifest)
    job = served.job()
    assert job["metadata"]["labels"][QUEUE] == "gpus"
    assert job["spec"]["suspend"] is True
    assert job["spec"]["parallelism"] == job["spec"]["completions"] == 2  # Kueue counts these pods, all or none
    admitted = "the Jobs are suspended until they are admitted"
    eventually(lambda: served.condition("Running").get("message") == admitted, admitted)
    served.stays_quiet()
    assert served.names("pods") == []

    for flavour in ("spot", "reserved"):
        pod = {"metadata": {"labels": {"flavour": flavour}}, "spec": {"nodeSelector": {"flavour": flavour}}}
        _admit(served, pod)
        pods = served.pods(count=2)
        assert {each["spec"]["nodeSelector"]["flavour"] for each in pods} == {flavour}
        served.run_pods(count=2)
        served.until("Running", "True")
        served.stays_quiet()
        assert served.job()["metadata"]["uid"] == job["metadata"]["uid"]
        served.api.patch("jobs", served.namespace, "reviews-0", {"spec": {"suspend": True}})  # evicted
        eventually(lambda: served.condition("Running").get("message") == admitted, admitted)
        assert served.condition("Stalled")["status"] == "False"
        assert served.job()["spec"]["suspend"] is True


def _is_held_back(served: Team) -> bool:
    """Policies act a moment after they are made."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}
    probe = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "probe", "labels": {QUEUE: "q"}},
        "spec": {"template": {"spec": pod}},
    }
    served.kubectl.apply(probe)
    made = served.api.find("jobs", served.namespace, "probe")
    served.kubectl.delete("job", "probe")
    return bool(made and made["spec"].get("suspend"))


def _admit(served: Team, template: dict[str, Any]) -> None:
    """The template may change while the Job is suspended, without pods and as if it had never started."""
    eventually(lambda: not served.names("pods"), "pods that are gone")
    eventually(lambda: not served.job().get("status", {}).get("active"), "a Job without pods")
    served.api.patch("jobs", served.namespace, "reviews-0", {"status": {"startTime": None}})
    served.api.patch("jobs", served.namespace, "reviews-0", {"spec": {"template": template}})
    served.api.patch("jobs", served.namespace, "reviews-0", {"spec": {"suspend": False}})
