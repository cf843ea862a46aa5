"""Least privilege: the operator has the rights that it uses, and no others.

One run plays everything that the operator does, then the API server's audit log is compared with the chart's roles. A
feature that needs a right plays it here (``PLAYS``); a right that nothing plays fails the test.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.api.harness import Team, eventually, study
from tests.api.installed import CHART, SYSTEM, helm
from tests.support.apiserver import ApiServer
from tests.support.kubectl import KubectlError

OPERATOR = "hpstudy"
Right = tuple[str, str, str]
"""API group, resource with subresource, verb."""


def play_a_life(team: Team) -> None:
    """Applied, run, over, deleted: studies, Jobs, Services, the ConfigMap, pods, the Secret, status and events."""
    team.apply(study(parallelism=2, budget={"maxTrials": 1}))
    team.run_pods("reviews-0")
    team.until("Running", "True")
    team.complete(0.5)
    team.poke()
    team.until("Succeeded", "True")
    team.kubectl.delete("hps", "reviews")


def play_fewer_groups(team: Team) -> None:
    """A group that is no longer wanted goes with its Job and its Service."""
    team.apply(study("fewer", parallelism=2))
    team.until_names("jobs", "fewer-0", "fewer-1")
    team.edit({"parallelism": 1}, "fewer")
    team.until_names("jobs", "fewer-0")
    team.until_names("services", "fewer-0")


def play_a_damaged_secret(team: Team) -> None:
    """The namespace's Secret is mended."""
    team.apply(study("mended"))
    team.secret()
    team.api.patch("secrets", team.namespace, "hpstudy-storage", {"data": {"url": b64encode(b"nonsense").decode()}})
    team.poke("mended")

    def is_mended() -> bool:
        found = team.api.find("secrets", team.namespace, "hpstudy-storage") or {}
        return b64decode(found["data"]["url"]).startswith(b"postgresql")

    eventually(is_mended, "a Secret that is mended")


def play_two_ends(team: Team) -> None:
    """A study with a finalizer, and one with a time to live."""
    team.apply(study("held", deletionPolicy="Delete"))
    team.until("StorageReady", "True", name="held")
    team.kubectl.delete("hps", "held")
    team.apply(study("short", budget={"maxTrials": 1}, ttlSecondsAfterFinished=0))
    team.pods("short-0")
    team.complete(0.5, name="short")
    team.poke("short")
    eventually(lambda: team.api.find("hpstudies", team.namespace, "short") is None, "the end of its time")


PLAYS: tuple[Callable[[Team], None], ...] = (play_a_life, play_fewer_groups, play_a_damaged_secret, play_two_ends)


def granted() -> set[Right]:
    """What the chart gives the operator's service account, over all roles."""
    text = helm("template", "hpstudy", str(CHART), f"--namespace={SYSTEM}")
    objects = [found for found in yaml.safe_load_all(text) if found]
    bound = {
        (found["roleRef"]["kind"], found["roleRef"]["name"])
        for found in objects
        if any(subject["name"] == OPERATOR for subject in found.get("subjects", []))
    }
    return {
        (group, resource, verb)
        for role in objects
        if (role["kind"], role["metadata"]["name"]) in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_of(event: dict[str, Any]) -> Iterator[Right]:
    """What a request needed."""
    target = event["objectRef"]
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    group = target.get("apiGroup", "")
    yield group, resource, event["verb"]
    if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
        yield group, resource, "create"  # server-side apply of something new


def test_every_right_is_used_and_every_need_is_granted(served: Team, server: ApiServer) -> None:
    for play in PLAYS:
        play(served)
    namespaces = {None, SYSTEM, served.namespace}  # other tests' namespaces would lend their use of a right
    events = [
        event
        for event in server.audit(SYSTEM, OPERATOR)
        if "objectRef" in event and event["objectRef"].get("namespace") in namespaces
    ]
    assert [event for event in events if event["responseStatus"].get("code") == 403] == []
    used = {right for event in events for right in rights_of(event)}
    assert granted() - used == set(), "rights that nothing uses: play their use here, or remove them from the chart"
    assert used - granted() == set()


def test_nothing_of_wildcards_or_of_reading_secrets_in_bulk() -> None:
    """What a stolen token could do with them is out of proportion."""
    found = granted()
    assert not [right for right in found if "*" in "".join(right)]
    assert not {verb for _, resource, verb in found if resource == "secrets"} & {"list", "watch", "delete"}
    assert not [right for right in found if right[1] in {"pods/exec", "pods/log", "nodes", "roles", "clusterroles"}]


@pytest.mark.parametrize(
    ("role", "verb", "may"),
    [("view", "list", True), ("view", "create", False), ("edit", "create", True), ("admin", "delete", True)],
)
def test_the_clusters_own_roles_for_people_cover_studies(team: Team, role: str, verb: str, may: bool) -> None:
    team.kubectl("create", "rolebinding", "somebody", f"--clusterrole={role}", "--user=somebody")

    def allowed() -> bool:
        try:
            return team.kubectl.as_user("somebody")("auth", "can-i", verb, "hpstudies.hpstudy.io").strip() == "yes"
        except KubectlError:
            return False

    if may:
        eventually(allowed, "the aggregated role")
    else:
        eventually(lambda: team.kubectl.as_user("somebody")("auth", "can-i", "list", "hps").strip() == "yes", "view")
        assert not allowed()
