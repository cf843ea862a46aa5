"""The operator's few calls, where the API server answers in a way that one would not think of."""

import kubernetes
import pytest

from hpstudy_operator.apply import apply_status
from hpstudy_operator.decide import Decision
from hpstudy_operator.kube import _PATHS, Kube, Ref, RefusedError
from hpstudy_operator.observe import Snapshot
from tests.api.harness import Team, study
from tests.support.apiserver import ApiServer


@pytest.fixture
def kube(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Kube:
    location = "KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(kubernetes.config.kube_config, location, str(server.kubeconfig))
    return Kube(connections=2)


def config_map(team: Team, **metadata: object) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "one", "namespace": team.namespace, **metadata},
        "data": {"a": "b"},
    }


def test_no_objects_are_an_empty_list(kube: Kube, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kube.select("Job", team.namespace, "hpstudy.io/study=none") == []
    monkeypatch.setitem(_PATHS, "CronJob", ("/apis/batch/v1", "cronjobs"))  # of which no test makes any
    assert kube.list_metadata("CronJob") == []


def test_the_metadata_of_all_namespaces_is_listed(kube: Kube, team: Team) -> None:
    assert team.api.create("hpstudies", team.namespace, study()) == ""
    (found,) = [s for s in kube.list_metadata("HPStudy") if s["metadata"]["namespace"] == team.namespace]
    assert found["metadata"]["generation"] == 1
    assert "spec" not in found


def test_what_is_not_there_is_none_and_can_be_deleted(kube: Kube, team: Team) -> None:
    assert kube.get("Job", team.namespace, "none") is None
    kube.delete(Ref("Job", team.namespace, "none", "some-uid"))


def test_a_successor_of_the_same_name_is_not_deleted(kube: Kube, team: Team) -> None:
    kube.apply(config_map(team))
    kube.delete(Ref("ConfigMap", team.namespace, "one", "an-earlier-uid"))
    assert kube.get("ConfigMap", team.namespace, "one") is not None


def test_what_exists_is_not_created_over(kube: Kube, team: Team) -> None:
    assert kube.create(config_map(team)) is not None
    assert kube.create(config_map(team)) is None


def test_an_object_that_is_wrong_is_refused_in_the_api_servers_words(kube: Kube, team: Team) -> None:
    with pytest.raises(RefusedError, match=r"metadata\.labels"):
        kube.apply(config_map(team, labels={"a": "not a label!"}))


def test_a_status_is_not_written_to_a_successor_of_the_same_name(kube: Kube, team: Team) -> None:
    assert team.api.create("hpstudies", team.namespace, study()) == ""
    earlier = Snapshot(team.study())
    team.kubectl.delete("hps", "reviews")
    assert team.api.create("hpstudies", team.namespace, study()) == ""
    assert not apply_status(kube, earlier, Decision({"best": "0.9", "conditions": []}))
    assert team.status() == {}
    assert apply_status(kube, Snapshot(team.study()), Decision({"best": "0.9", "conditions": []}))
    assert team.status()["best"] == "0.9"
