"""The chart as helm renders it. That the operator gets along with its rights is shown by every other test here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.client import Api
from tests.api.harness import eventually
from tests.api.installed import CHART, helm
from tests.support.apiserver import ApiServer
from tests.support.processes import REPOSITORY

_EXTERNAL = ("--set=postgresql.enabled=false", "--set=externalDatabase.secretName=db")
_AUTHORITY = (
    '--set-json=extraVolumes=[{"name":"ca","secret":{"secretName":"database-ca"}}]',
    '--set-json=extraVolumeMounts=[{"name":"ca","mountPath":"/etc/database-ca","readOnly":true}]',
)


def rendered(*arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    text = helm("template", "hpstudy", str(CHART), "--namespace=system", *arguments)
    objects = [found for found in yaml.safe_load_all(text) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def test_lint_is_clean() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_everything_that_is_rendered_is_taken(server: ApiServer) -> None:
    """By the API server, in a namespace that enforces the restricted Pod Security Standard."""
    Api(server).create_namespace("system")
    kubectl = server.kubectl.in_namespace("system")
    kubectl("label", "namespace", "system", "pod-security.kubernetes.io/enforce=restricted")
    target = ("--namespace=system", f"--kubeconfig={server.kubeconfig}", "--dry-run=server")
    helm("install", "another", str(CHART), *target, "--set=crds.install=false")
    for (kind, _), workload in rendered(*_AUTHORITY).items():
        if kind in {"Deployment", "StatefulSet", "Job"}:
            pod = pod_of(workload)
            pod["volumes"] += [{"name": "data", "emptyDir": {}}]  # the StatefulSet's claim
            metadata = {"name": "try", "labels": workload["spec"]["template"]["metadata"]["labels"]}
            manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
            kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.dump(manifest))


def test_the_password_is_kept_over_upgrades_and_given_by_reference(server: ApiServer) -> None:
    Api(server).create_namespace("upgraded")
    kubectl = server.kubectl.in_namespace("upgraded")

    def upgrade(*arguments: str) -> dict[str, Any]:
        helm("upgrade", "--install", "twice", str(CHART), "--namespace=upgraded", f"--kubeconfig={server.kubeconfig}",
             "--set=crds.install=false", *arguments)  # fmt: skip
        secret: dict[str, Any] = kubectl.get("secret", "twice-hpstudy-postgresql")["data"]
        return secret

    first = upgrade()
    assert upgrade("--set=image.tag=next") == first
    uninstall = ("uninstall", "twice", "--no-hooks", "--namespace=upgraded", f"--kubeconfig={server.kubeconfig}")
    helm(*uninstall)  # no hooks: nothing runs pods here
    assert upgrade() == first  # the volume is still there, and knows no other password
    (url, *_) = pod_of(kubectl.get("deployment", "twice-hpstudy"))["containers"][0]["env"]
    assert url.keys() == {"name", "valueFrom"}
    helm(*uninstall)


def test_a_password_of_ones_own_is_used_where_nothing_can_be_looked_up() -> None:
    """As in Argo CD, which renders the chart again and again."""
    passwords = [rendered()["Secret", "hpstudy-postgresql"]["stringData"]["password"] for _ in range(2)]
    assert passwords[0] != passwords[1]
    own = [rendered("--set=postgresql.existingSecret=mine") for _ in range(2)]
    assert own[0] == own[1]
    assert not [name for kind, name in own[0] if kind == "Secret"]
    variables = [
        variable["valueFrom"]["secretKeyRef"]
        for workload in (own[0]["Deployment", "hpstudy"], own[0]["StatefulSet", "hpstudy-postgresql"])
        for variable in _container(workload)["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    ]
    assert variables == [{"name": "mine", "key": "url"}, {"name": "mine", "key": "password"}]


def test_the_hook_that_releases_studies_is_admitted_as_the_operator_is_and_ends_before_helm_gives_up() -> None:
    objects = rendered("--set=resources.limits.cpu=1")
    job = objects["Job", "hpstudy-release"]
    assert _container(job)["resources"] == _container(objects["Deployment", "hpstudy"])["resources"]
    assert _container(job)["resources"]["limits"]["cpu"] == 1
    assert job["spec"]["activeDeadlineSeconds"] < 300
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_a_hook_that_fails_leaves_neither_rights_nor_a_job_without_them(server: ApiServer) -> None:
    """Helm waits for a Job that nothing runs here."""
    Api(server).create_namespace("stuck")
    target = ("--namespace=stuck", f"--kubeconfig={server.kubeconfig}")
    helm("install", "stuck", str(CHART), *target, "--set=crds.install=false")
    with pytest.raises(RuntimeError, match="timed out"):
        helm("uninstall", "stuck", *target, "--timeout=3s")
    kubectl = server.kubectl.in_namespace("stuck")
    kinds = "job,pod,serviceaccount,clusterrole,clusterrolebinding"

    def left() -> str:
        return kubectl("get", kinds, "--selector=app.kubernetes.io/instance=stuck", "--output=name")

    eventually(lambda: left() == "", "nothing left")


def test_the_crd_outlives_the_chart() -> None:
    crd = rendered()["CustomResourceDefinition", "hpstudies.hpstudy.io"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert ("CustomResourceDefinition", "hpstudies.hpstudy.io") not in rendered("--set=crds.install=false")


def test_an_external_database_replaces_ours() -> None:
    objects = rendered(*_EXTERNAL, "--set=externalDatabase.secretKey=dsn")
    assert not any(kind in {"StatefulSet", "Secret", "Service"} for kind, _ in objects)
    (url, *_) = pod_of(objects["Deployment", "hpstudy"])["containers"][0]["env"]
    assert url["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "dsn"}


def test_a_file_for_the_databases_url_is_mounted_into_the_operator_alone() -> None:
    objects = rendered(*_EXTERNAL, *_AUTHORITY)
    pod = pod_of(objects["Deployment", "hpstudy"])
    assert {"name": "ca", "secret": {"secretName": "database-ca"}} in pod["volumes"]
    assert {"name": "ca", "mountPath": "/etc/database-ca", "readOnly": True} in _container(
        objects["Deployment", "hpstudy"]
    )["volumeMounts"]
    plain = pod_of(rendered(*_EXTERNAL)["Deployment", "hpstudy"])
    assert [volume["name"] for volume in pod["volumes"]] == [*(v["name"] for v in plain["volumes"]), "ca"]
    assert [volume["name"] for volume in pod_of(objects["Job", "hpstudy-release"])["volumes"]] == ["tmp"]
    with pytest.raises(RuntimeError, match="mountPath"):
        rendered("--set=extraVolumeMounts[0].name=ca")


def test_the_documented_values_for_a_database_with_tls_mount_the_file_that_its_url_names(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    (values,) = re.findall(r"<<'EOF'\n(postgresql: .*?)\nEOF$", page, re.M | re.S)
    (tmp_path / "values.yaml").write_text(values)
    mounts = _container(rendered(f"--values={tmp_path}/values.yaml")["Deployment", "hpstudy"])["volumeMounts"]
    (path,) = set(re.findall(r"sslrootcert=(/.+?)'", page))
    assert str(Path(path).parent) in {mount["mountPath"] for mount in mounts}


def test_workers_may_find_the_database_elsewhere() -> None:
    objects = rendered("--set=workersDatabase.host=pooler.db.svc", "--set=workersDatabase.port=6432",
                       "--set=postgresql.maxConnections=1000")  # fmt: skip
    environment = {found["name"]: found.get("value") for found in _container(objects["Deployment", "hpstudy"])["env"]}
    assert environment["HPSTUDY_WORKERS_DATABASE_HOST"] == "pooler.db.svc"
    assert environment["HPSTUDY_WORKERS_DATABASE_PORT"] == "6432"
    assert "max_connections=1000" in _container(objects["StatefulSet", "hpstudy-postgresql"])["args"]


def _container(workload: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(workload)["containers"][0]
    return container


def test_a_missing_external_database_or_an_unknown_value_is_refused() -> None:
    with pytest.raises(RuntimeError, match="secretName"):
        rendered("--set=postgresql.enabled=false")
    with pytest.raises(RuntimeError, match="postgres"):
        rendered("--set=postgres.enabled=false")


def test_images_pull_secrets_resources_and_storage_are_what_the_values_say() -> None:
    objects = rendered(
        *("--set=image.repository=mine/operator", "--set=image.tag=v1"),
        *("--set=runnerImage.repository=mine/runner", "--set=runnerImage.tag=v2"),
        *("--set=imagePullSecrets[0].name=registry", "--set=resources.limits.memory=1Gi"),
        *("--set=postgresql.image=mine/postgres:3", "--set=postgresql.storage.size=1Gi"),
        *("--set=postgresql.storage.className=fast", "--set=postgresql.resources.limits.memory=2Gi"),
    )
    operator = pod_of(objects["Deployment", "hpstudy"])
    database = objects["StatefulSet", "hpstudy-postgresql"]
    container = operator["containers"][0]
    assert container["image"] == "mine/operator:v1"
    assert {"name": "HPSTUDY_RUNNER_IMAGE", "value": "mine/runner:v2"} in container["env"]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert operator["imagePullSecrets"] == pod_of(database)["imagePullSecrets"] == [{"name": "registry"}]
    assert pod_of(database)["containers"][0]["image"] == "mine/postgres:3"
    assert pod_of(database)["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
    claim = database["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "1Gi"


def test_images_are_of_the_charts_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    container = pod_of(rendered()["Deployment", "hpstudy"])["containers"][0]
    assert container["image"] == f"ghcr.io/hpstudy/operator:{chart['appVersion']}"


def test_the_operators_database_is_found_from_other_namespaces() -> None:
    objects = rendered()
    url = objects["Secret", "hpstudy-postgresql"]["stringData"]["url"]
    assert "@hpstudy-postgresql.system.svc:5432/hpstudy" in url
    assert ("Service", "hpstudy-postgresql") in objects


def test_watched_namespaces_are_what_the_operator_is_told_and_has_roles_for() -> None:
    objects = rendered("--set=watchNamespaces={red,blue}")
    assert not {kind for kind, _ in objects} & {"ClusterRoleBinding"}
    text = helm("template", "hpstudy", str(CHART), "--namespace=system", "--set=watchNamespaces={red,blue}")
    found = [
        each
        for each in yaml.safe_load_all(text)
        if each and each["kind"] in {"Role", "RoleBinding"} and each["metadata"]["name"] == "hpstudy"
    ]
    assert sorted((each["kind"], each["metadata"]["namespace"]) for each in found) == [
        ("Role", "blue"),
        ("Role", "red"),
        ("RoleBinding", "blue"),
        ("RoleBinding", "red"),
    ]
    assert objects["Role", "hpstudy-lease"]["metadata"]["namespace"] == "system"
    assert {each["subjects"][0]["namespace"] for each in found if "subjects" in each} == {"system"}
    told = {"name": "HPSTUDY_WATCH_NAMESPACES", "value": "red,blue"}
    assert told in pod_of(objects["Deployment", "hpstudy"])["containers"][0]["env"]
    with pytest.raises(RuntimeError, match="watchNamespaces"):
        rendered("--set=watchNamespaces={Red}")


def test_roles_for_people_can_be_left_out() -> None:
    assert ("ClusterRole", "hpstudy-edit") in rendered()
    assert ("ClusterRole", "hpstudy-edit") not in rendered("--set=userRoles.create=false")


def test_the_operator_and_its_database_take_connections_only_from_those_who_need_them() -> None:
    objects = rendered('--set-json=networkPolicies.databaseClients=[{"ipBlock":{"cidr":"10.1.0.0/16"}}]')
    for name, workload in (("hpstudy", "Deployment"), ("hpstudy-postgresql", "StatefulSet")):
        policy, pod = objects["NetworkPolicy", name]["spec"], objects[workload, name]["spec"]["template"]
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert policy["policyTypes"] == ["Ingress"]
        (rule,) = policy["ingress"]
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        assert {port["port"] for port in rule["ports"]} == ports
    operator, workers, more = rule["from"]
    labels = objects["Deployment", "hpstudy"]["spec"]["template"]["metadata"]["labels"]
    assert operator.keys() == {"podSelector"}
    assert operator["podSelector"]["matchLabels"].items() <= labels.items()
    assert workers["podSelector"]["matchExpressions"] == [{"key": "hpstudy.io/study", "operator": "Exists"}]
    assert workers["namespaceSelector"] == {}
    assert more == {"ipBlock": {"cidr": "10.1.0.0/16"}}


def test_network_policies_follow_the_other_values() -> None:
    database = ("NetworkPolicy", "hpstudy-postgresql")
    (rule,) = rendered("--set=watchNamespaces={red}")[database]["spec"]["ingress"]
    (expression,) = rule["from"][1]["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["red"]}
    assert database not in rendered(*_EXTERNAL)
    assert not [name for kind, name in rendered("--set=networkPolicies.enabled=false") if kind == "NetworkPolicy"]
    with pytest.raises(RuntimeError, match="databaseClients"):
        rendered("--set=networkPolicies.databaseClients[0].pods=all")


def test_one_replica_is_recreated_and_several_are_rolled_out_apart() -> None:
    one = rendered()["Deployment", "hpstudy"]["spec"]
    assert (one["replicas"], one["strategy"]) == (1, {"type": "Recreate"})
    assert ("PodDisruptionBudget", "hpstudy") not in rendered()
    objects = rendered("--set=replicas=3")
    three = objects["Deployment", "hpstudy"]["spec"]
    assert (three["replicas"], three["strategy"]) == (3, {"type": "RollingUpdate"})
    budget = objects["PodDisruptionBudget", "hpstudy"]["spec"]
    assert budget["maxUnavailable"] == 1
    labels = three["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    affinity = three["template"]["spec"]["affinity"]["podAntiAffinity"]
    (term,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()
    with pytest.raises(RuntimeError, match="replicas"):
        rendered("--set=replicas=0")


def test_the_lease_is_the_charts_and_the_operators() -> None:
    """It goes with the chart, and the role is for the one that the operator is told."""
    objects = rendered("--set=logLevel=debug")
    assert "spec" not in objects["Lease", "hpstudy"]
    environment = pod_of(objects["Deployment", "hpstudy"])["containers"][0]["env"]
    assert {"name": "HPSTUDY_LEASE", "value": "system/hpstudy"} in environment
    assert {"name": "HPSTUDY_LOG_LEVEL", "value": "debug"} in environment
    assert {"name": "HPSTUDY_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in environment
    rules = objects["Role", "hpstudy-lease"]["rules"]
    assert {(verb, *rule.get("resourceNames", ())) for rule in rules for verb in rule["verbs"]} == {
        ("get", "hpstudy"),
        ("update", "hpstudy"),
        ("create",),
    }
    with pytest.raises(RuntimeError, match="logLevel"):
        rendered("--set=logLevel=loud")


def test_prometheus_reads_the_port_that_the_probes_ask() -> None:
    assert not any(kind == "PodMonitor" for kind, _ in rendered())
    objects = rendered("--set=podMonitor.enabled=true", "--set=podMonitor.labels.release=monitoring")
    monitor = objects["PodMonitor", "hpstudy"]
    assert monitor["metadata"]["labels"]["release"] == "monitoring"
    template = objects["Deployment", "hpstudy"]["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    container = template["spec"]["containers"][0]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert [port["name"] for port in container["ports"]] == [endpoint["port"]]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": endpoint["port"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": endpoint["port"]}
