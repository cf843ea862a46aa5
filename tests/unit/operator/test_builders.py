"""The objects of a study, and what becomes of the user's pod template in them."""

import json
from typing import Any

import pytest

from hpstudy.api.checkpoints import check_place
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study
from hpstudy_operator.builders import build_config_map, build_service, build_worker_job, check_template
from tests.unit.operator.objects import IMAGE, SECRET, STUDY_UID, study


def worker_job(template: dict[str, Any] | None = None, **workers: Any) -> dict[str, Any]:
    resource = study(workers={"template": template or {}, **workers})
    return build_worker_job(resource, 0, image=IMAGE, storage=SECRET)


def pod_spec(template: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = worker_job(template)["spec"]["template"]["spec"]
    return spec


def with_container(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [container]}}


IN_ONE_RACK = {"topologyKey": "rack", "labelSelector": {}, "matchLabelKeys": ["hpstudy.io/study", "hpstudy.io/group"]}
PLACEMENT: dict[str, Any] = {
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "gpu"}],
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [IN_ONE_RACK]}},
    "topologySpreadConstraints": [{**IN_ONE_RACK, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "research",
    "schedulerName": "volcano",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
}


class TestJob:
    def test_a_group_is_an_indexed_job_of_one_pod_for_each_node(self) -> None:
        made = build_worker_job(study(workers={"nodes": 4}), 3, image=IMAGE, storage=SECRET)
        assert made["metadata"]["name"] == "reviews-3"
        assert made["spec"]["completionMode"] == "Indexed"
        assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (4, 4)
        assert made["spec"]["podReplacementPolicy"] == "Failed"

    def test_the_worker_finds_its_study_group_peers_and_storage(self) -> None:
        container = pod_spec()["containers"][0]
        assert container["command"] == ["hpstudy"]
        assert container["args"] == [
            *["worker", "--study", "/etc/hpstudy/study.json", "--group", "0"],
            *["--coordinator", "reviews-0-0.reviews-0:29400"],
        ]
        assert container["env"] == [
            {"name": "HPSTUDY_STORAGE_URL", "valueFrom": {"secretKeyRef": {"name": "storage", "key": "url"}}},
            {"name": "HPSTUDY_GRACE_SECONDS", "value": "30"},
        ]
        assert pod_spec()["subdomain"] == build_service(study(), 0)["metadata"]["name"] == "reviews-0"

    def test_what_was_done_to_a_pod_costs_nothing_and_an_invalid_study_ends_the_job(self) -> None:
        evicted, killed, fail = worker_job(with_container(name="trainer"))["spec"]["podFailurePolicy"]["rules"]
        assert evicted["action"] == killed["action"] == "Ignore"
        assert killed["onExitCodes"] == {"containerName": "trainer", "operator": "In", "values": [137, 143]}
        assert fail["action"] == "FailJob"
        assert fail["onExitCodes"] == {"containerName": "trainer", "operator": "In", "values": [2]}

    def test_everything_belongs_to_this_very_study(self) -> None:
        for child in (worker_job(), build_service(study(), 0), build_config_map(study())):
            (owner,) = child["metadata"]["ownerReferences"]
            assert owner["uid"] == STUDY_UID
            assert owner["controller"] is True
            assert child["metadata"]["labels"]["hpstudy.io/study"] == "reviews"

    def test_the_service_selects_the_pods_of_its_group_also_before_they_are_ready(self) -> None:
        service = build_service(study(), 0)
        labels = worker_job()["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["selector"].items() <= labels.items()

    def test_what_is_for_kueue_and_volcano_is_carried_through(self) -> None:
        resource = study()
        resource["metadata"]["labels"] = {
            "kueue.x-k8s.io/queue-name": "gpus",
            "kueue.x-k8s.io/priority-class": "low",
            "other": "not ours",
        }
        resource["metadata"]["annotations"] = {"scheduling.volcano.sh/queue-name": "gpus", "other": "not ours"}
        metadata = build_worker_job(resource, 0, image=IMAGE, storage=SECRET)["metadata"]
        assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        assert metadata["labels"]["kueue.x-k8s.io/priority-class"] == "low"
        assert metadata["annotations"]["scheduling.volcano.sh/queue-name"] == "gpus"
        assert not {"other"} & (metadata["labels"].keys() | metadata["annotations"].keys())
        assert "scheduling.volcano.sh/group-min-member" not in metadata["annotations"]

    def test_volcano_starts_all_pods_of_a_group_or_none(self) -> None:
        made = worker_job({"spec": {"schedulerName": "volcano"}}, nodes=3)
        assert made["metadata"]["annotations"]["scheduling.volcano.sh/group-min-member"] == "3"

    def test_the_study_itself_is_left_as_it_was(self) -> None:
        resource = study(workers={"template": with_container(name="worker", env=[{"name": "A", "value": "b"}])})
        before = json.dumps(resource)
        build_worker_job(resource, 0, image=IMAGE, storage=SECRET)
        build_config_map(resource)
        assert json.dumps(resource) == before


class TestTemplate:
    def test_without_a_template_there_is_one_worker_with_the_default_image(self) -> None:
        (container,) = pod_spec()["containers"]
        assert (container["name"], container["image"]) == ("worker", IMAGE)

    def test_the_users_own_settings_stay(self) -> None:
        template = {
            "metadata": {"labels": {"team": "nlp"}, "annotations": {"note": "mine"}},
            "spec": {
                **PLACEMENT,
                "terminationGracePeriodSeconds": 300,
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "containers": [
                    {
                        "name": "worker",
                        "image": "mine:1",
                        "imagePullPolicy": "Always",
                        "env": [{"name": "HF_HOME", "value": "/data/hf"}],
                        "resources": {"limits": {"nvidia.com/gpu": 2}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
            },
        }
        made = worker_job(template)["spec"]["template"]
        spec, container = made["spec"], made["spec"]["containers"][0]
        assert made["metadata"]["labels"]["team"] == "nlp"
        assert made["metadata"]["annotations"] == {"note": "mine"}
        assert {key: spec[key] for key in PLACEMENT} == PLACEMENT
        assert spec["terminationGracePeriodSeconds"] == 300
        assert {"name": "HPSTUDY_GRACE_SECONDS", "value": "300"} in spec["containers"][0]["env"]
        assert (container["image"], container["imagePullPolicy"]) == ("mine:1", "Always")
        assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
        assert {"name": "HF_HOME", "value": "/data/hf"} in container["env"]
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]

    def test_sidecars_stay_the_native_kind_too(self) -> None:
        native = {"name": "proxy", "restartPolicy": "Always", "command": ["proxy"], "ports": [{"containerPort": 1}]}
        plain = {"name": "log", "command": ["tail"], "args": ["-f"]}
        spec = pod_spec({"spec": {"containers": [{"name": "worker"}, plain], "initContainers": [native]}})
        assert native.items() <= spec["initContainers"][0].items()
        assert plain.items() <= spec["containers"][1].items()

    def test_on_the_nodes_network_names_are_still_the_clusters(self) -> None:
        host = {"hostNetwork": True}
        assert pod_spec({"spec": host})["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert pod_spec({"spec": {**host, "dnsPolicy": "None"}})["dnsPolicy"] == "None"
        assert "dnsPolicy" not in pod_spec()

    @pytest.mark.parametrize(
        ("names", "worker"), [(["a", "b"], "a"), (["a", "worker"], "worker"), (["worker", "b"], "worker")]
    )
    def test_the_container_named_worker_or_else_the_first_runs_the_trials(self, names: list[str], worker: str) -> None:
        spec = pod_spec({"spec": {"containers": [{"name": name, "image": name} for name in names]}})
        assert spec["containers"][0]["name"] == worker
        assert spec["containers"][0]["command"] == ["hpstudy"]
        assert sorted(container["name"] for container in spec["containers"]) == sorted(names)
        assert "command" not in spec["containers"][1]

    def test_pods_meet_the_restricted_standard(self) -> None:
        spec = pod_spec(
            {"spec": {"containers": [{"name": "worker"}, {"name": "log"}], "initContainers": [{"name": "i"}]}}
        )
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in (*spec["containers"], *spec["initContainers"]):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False

    def test_security_can_be_set_field_by_field(self) -> None:
        template = with_container(name="worker", securityContext={"readOnlyRootFilesystem": False})
        template["spec"]["securityContext"] = {"fsGroup": 1000}
        spec = pod_spec(template)
        assert spec["securityContext"]["fsGroup"] == 1000
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
        assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}

    def test_tmp_and_shared_memory_can_be_written(self) -> None:
        spec = pod_spec()
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["/etc/hpstudy"]["configMap"] == {"name": "reviews-study"}
        assert mounts["/tmp"]["emptyDir"] == {}
        assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory"}

    def test_a_users_own_mount_of_them_takes_precedence(self) -> None:
        mount = {"name": "scratch", "mountPath": "/tmp"}
        spec = pod_spec(with_container(name="worker", volumeMounts=[mount]))
        assert [m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == "/tmp"] == [mount]

    @pytest.mark.parametrize(
        "template",
        [
            {"spec": "pod"},
            {"spec": {"containers": {"name": "worker"}}},
            {"spec": {"containers": ["worker"]}},
            {"metadata": ["labels"]},
            with_container(name="worker", env={"A": "b"}),
            with_container(name="worker", resources={"limits": {"nvidia.com/gpu": "many"}}),
            with_container(name="worker", securityContext=[1]),
            {"spec": {"volumes": "data"}},
        ],
    )
    def test_a_template_of_another_shape_is_refused_in_words(self, template: dict[str, Any]) -> None:
        with pytest.raises(InvalidStudyError, match=r"^workers\.template: "):
            check_template(study(workers={"template": template}))

    @pytest.mark.parametrize(
        ("limits", "ranks"),
        [
            ({"nvidia.com/gpu": 2}, 3),
            ({"nvidia.com/gpu": "1"}, 2),
            ({"amd.com/gpu": 4, "cpu": 8}, 8),
        ],
    )
    def test_more_ranks_than_gpus_are_refused_with_both_numbers(self, limits: dict[str, Any], ranks: int) -> None:
        template = with_container(name="worker", resources={"limits": limits})
        check_template(study(workers={"template": template, "processesPerNode": "auto"}))
        held = next(iter(limits.values()))
        with pytest.raises(InvalidStudyError, match=rf"processesPerNode: {ranks} ranks need .* limited to {held};"):
            check_template(study(workers={"template": template, "processesPerNode": ranks}))

    @pytest.mark.parametrize(
        ("limits", "ranks"),
        [
            ({}, 3),  # on CPUs
            ({"nvidia.com/gpu": 0}, 3),
            ({"nvidia.com/gpu": 4}, 4),
            ({"nvidia.com/gpu": 4}, 1),
            ({"gpu.intel.com/xe": 1}, 2),  # of which torch.cuda knows nothing
        ],
    )
    def test_as_many_ranks_as_gpus_or_fewer_are_not(self, limits: dict[str, Any], ranks: int) -> None:
        template = with_container(name="worker", resources={"limits": limits})
        check_template(study(workers={"template": template, "processesPerNode": ranks}))


class TestConfig:
    def test_workers_read_the_study_without_the_template(self) -> None:
        resource = study(workers={"nodes": 2, "processesPerNode": 3, "template": with_container(name="worker")})
        resolved = json.loads(build_config_map(resource)["data"]["study.json"])
        assert "template" not in resolved["spec"]["workers"]
        assert resolved["metadata"] == {"name": "reviews", "namespace": "team", "uid": STUDY_UID}
        assert parse_study(resolved).spec.workers.processes_per_node == 3

    @pytest.mark.parametrize(
        ("limits", "processes"),
        [
            ({}, 1),
            ({"cpu": "4", "memory": "8Gi"}, 1),
            ({"nvidia.com/gpu": 8}, 8),
            ({"nvidia.com/gpu": "8"}, 8),
            ({"amd.com/gpu": "2"}, 2),
            ({"nvidia.com/gpu.shared": "2"}, 1),
            ({"gpu.intel.com/xe": 2}, 2),
            ({"gpu.intel.com/xe_monitoring": 1}, 1),
            ({"nvidia.com/mig-1g.10gb": 3}, 1),
        ],
    )
    def test_auto_means_one_process_for_each_gpu_of_the_worker_or_one(
        self, limits: dict[str, Any], processes: int
    ) -> None:
        greedy = {"name": "init", "restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": 16}}}
        worker = {"name": "worker", "resources": {"limits": limits}}
        template = {"spec": {"initContainers": [greedy], "containers": [{"name": "log"}, worker]}}
        resource = study(workers={"processesPerNode": "auto", "template": template})
        resolved = json.loads(build_config_map(resource)["data"]["study.json"])
        assert resolved["spec"]["workers"]["processesPerNode"] == processes


CLAIM = {"persistentVolumeClaim": {"claimName": "shared"}}


class TestCheckpoints:
    def made(self, template: dict[str, Any] | None = None) -> dict[str, Any]:
        resource = study(workers={"template": template or {}}, checkpoints={"volume": CLAIM})
        spec: dict[str, Any] = build_worker_job(resource, 0, image=IMAGE, storage=SECRET)["spec"]["template"]["spec"]
        return spec

    def test_their_volume_is_mounted_where_workers_look_and_can_be_written_to(self) -> None:
        spec = self.made()
        assert {"name": "hpstudy-checkpoints", **CLAIM} in spec["volumes"]
        mount = {"name": "hpstudy-checkpoints", "mountPath": "/checkpoints"}
        assert mount in spec["containers"][0]["volumeMounts"]
        assert spec["securityContext"]["fsGroup"] == 65532
        assert self.made({"spec": {"securityContext": {"fsGroup": 7}}})["securityContext"]["fsGroup"] == 7
        assert "fsGroup" not in pod_spec()["securityContext"]
        resolved = json.loads(build_config_map(study(checkpoints={"volume": CLAIM}))["data"]["study.json"])
        assert resolved["spec"]["checkpoints"] == {"volume": CLAIM}

    def test_a_mount_of_the_users_in_its_place_is_refused(self) -> None:
        own = with_container(name="worker", volumeMounts=[{"name": "mine", "mountPath": "/checkpoints"}])
        check_template(study(workers={"template": own}))
        with pytest.raises(InvalidStudyError, match="take another mountPath"):
            check_template(study(workers={"template": own}, checkpoints={"volume": CLAIM}))

    @pytest.mark.parametrize(
        ("checkpoints", "complaint"),
        [
            ({"keep": "best"}, "name the place, volume"),
            ({"url": "memory://x"}, "memory:// ends with its process"),
        ],
    )
    def test_a_study_without_a_place_for_them_is_refused(self, checkpoints: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InvalidStudyError, match=complaint) as refused:
            check_place(parse_study(study(checkpoints=checkpoints)).spec.checkpoints)
        assert refused.value.reason == "InvalidCheckpoints"

    @pytest.mark.parametrize("volume", [{}, {"name": "x", **CLAIM}, {"emptyDir": {}}, {"hostPath": "/x"}])
    def test_a_volume_that_is_none_is_refused(self, volume: dict[str, Any]) -> None:
        with pytest.raises(InvalidStudyError, match=r"checkpoints\.volume"):
            parse_study(study(checkpoints={"volume": volume}))
