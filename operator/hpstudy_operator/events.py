"""Events on the HPStudy, as ``kubectl describe`` shows them."""

import logging
from datetime import UTC, datetime

from hpstudy.api.study import API_VERSION, KIND
from hpstudy_operator.conditions import Change, timestamp
from hpstudy_operator.kube import FIELD_MANAGER, ApiError, Kube, Resource, UnavailableError

_log = logging.getLogger(__name__)
_MAX_MESSAGE = 1024
"""Characters; the API server refuses longer ones."""


def emit(kube: Kube, study: Resource, change: Change) -> None:
    """Tell that a condition changed. An event is a courtesy: one that cannot be written is only logged."""
    metadata, state = study["metadata"], change.state
    text = state.message or f"{state.type} is {state.status}"
    _log.log(logging.WARNING if change.warning else logging.INFO, "%s=%s %s: %s", *_fields(change), text)
    now = timestamp(datetime.now(UTC))
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": "Warning" if change.warning else "Normal",
        "reason": state.reason,
        "message": text[:_MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        kube.create(event)
    except (ApiError, UnavailableError) as error:
        _log.warning("an event could not be written: %s", error)


def _fields(change: Change) -> tuple[str, str, str]:
    return change.state.type, change.state.status, change.state.reason
