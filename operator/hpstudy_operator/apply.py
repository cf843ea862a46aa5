"""Making it so: deletions, then objects, then the status, then events.

Every step may be the last one; the next pass goes on from what it finds.
"""

import logging
from dataclasses import replace

from hpstudy.api.study import API_VERSION, KIND
from hpstudy_operator.conditions import changes, shorten
from hpstudy_operator.decide import Decision
from hpstudy_operator.events import emit
from hpstudy_operator.kube import ApiError, Kube, RefusedError
from hpstudy_operator.observe import Snapshot
from hpstudy_operator.results import final_changes

_log = logging.getLogger(__name__)
_PLAIN = ("conditions", "observedGeneration", "startTime", "completionTime")
"""Of a status: what says where the study stands."""


def apply_children(kube: Kube, decision: Decision) -> list[RefusedError]:
    """Delete and apply what was decided; returns what the API server does not take. What needs no refused object is
    made all the same."""
    refused: list[RefusedError] = []
    for reference in decision.delete:
        kube.delete(reference)
    deleted = {(reference.kind, reference.name) for reference in decision.delete}
    for child in decision.apply:
        metadata = child["metadata"]
        replaces = (child["kind"], metadata["name"]) in deleted
        if replaces and kube.get(child["kind"], metadata["namespace"], metadata["name"]):
            continue  # a finalizer holds the old one; the new one is made when it is gone
        if any(error.kind == "ConfigMap" or error.name == metadata["name"] for error in refused):
            continue  # its pods would hold what they ask for, and wait for their study or their names
        try:
            kube.apply(child)
        except RefusedError as error:
            refused.append(error)
    return refused


def apply_results(kube: Kube, decision: Decision) -> Decision:
    """Apply what others take from the study; returns the decision with what the API server has against it."""
    for result in decision.results:
        try:
            kube.apply(result)
        except RefusedError as error:
            _log.warning("%s %s is refused: %s", result["kind"], result["metadata"]["name"], error)
            if result["kind"] == "Job":
                record = {**decision.status["onSuccess"], "message": shorten(f"the Job is refused: {error}")}
                decision = replace(decision, status={**decision.status, "onSuccess": record})
    return decision


def apply_status(kube: Kube, snapshot: Snapshot, decision: Decision) -> bool:
    """Write the status when it says something new, and then, once, the events about it.

    Returns False, with nothing written, when the study is no longer the one that was looked at.

    Raises:
        RefusedError: the API server takes nothing of it.
    """
    try:
        return _write(kube, snapshot, decision)
    except RefusedError as error:
        # A mistake of ours in one field must not keep from anybody that the study has succeeded.
        _log.error("the status is refused, only its conditions are written: %s", error)
    before, after = snapshot.status, decision.status
    kept = {key: value for key, value in before.items() if key not in _PLAIN}
    return _write(kube, snapshot, replace(decision, status=kept | {key: after[key] for key in _PLAIN if key in after}))


def _write(kube: Kube, snapshot: Snapshot, decision: Decision) -> bool:
    before = snapshot.status
    if decision.status == before:
        return True
    # The uid would not do: for a status the API server ignores it, and an old study's could land on a new one.
    metadata = {key: snapshot.resource["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    status = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": dict(decision.status)}
    try:
        kube.apply(status, "status")
    except ApiError as error:
        if error.status in {404, 409}:
            return False
        raise
    new = changes(before.get("conditions", []), decision.status["conditions"])
    for change in new + final_changes(before.get("onSuccess"), decision.status.get("onSuccess")):
        emit(kube, snapshot.resource, change)
    return True
