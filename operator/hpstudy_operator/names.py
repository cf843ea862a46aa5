"""Names and labels of what is made for a study. Deterministic: a pass that is repeated finds what the last one made."""

from hpstudy.api.names import LABEL_GROUP, LABEL_STUDY
from hpstudy.api.study import API_VERSION, KIND, Metadata
from hpstudy_operator.kube import FIELD_MANAGER, Resource

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
ANNOTATION_GENERATION = "hpstudy.io/generation"
"""On the Job of onSuccess and the ConfigMap: the study's generation that it was made from."""
ANNOTATION_VERSION = "hpstudy.io/operator-version"
"""On all that is made for a study: which version of the operator made it."""
ANNOTATION_REVISION = "hpstudy.io/revision"
"""On a Job: of what of the spec it was made from (``hpstudy.api.revision``)."""
ANNOTATION_FINGERPRINT = "hpstudy.io/fingerprint"
"""On a Job: of the spec that it was made for, as far as workers know of it."""
ANNOTATION_STORAGE = "hpstudy.io/storage"
"""On a Job of a study that brings its storage: which one it was made for."""
ANNOTATION_ATTEMPT = "hpstudy.io/attempt"
"""On a Job: how often the group was started again because its workers ended before the study did, or failed."""


VOLCANO = "volcano"
"""Volcano's usual name as ``schedulerName``."""
_QUEUES = ("kueue.x-k8s.io/", "scheduling.volcano.sh/")
"""What of a study's labels and annotations is for those who queue its Jobs: with Kueue, say, the queue in which a Job
waits for room; https://kueue.sigs.k8s.io/docs/tasks/run/jobs/"""
MIN_MEMBER = "scheduling.volcano.sh/group-min-member"
"""On a Job: how many of its pods Volcano starts together or not at all; read in its pg_controller_handler.go."""


def group_name(study: str, group: int) -> str:
    """The Job of a worker group, and the headless Service of its pods."""
    return f"{study}-{group}"


def config_name(study: str) -> str:
    """The ConfigMap with the study as its workers read it."""
    return f"{study}-study"


def best_name(study: str) -> str:
    """The ConfigMap with the best trial, for others to read."""
    return f"{study}-best"


def final_name(study: str) -> str:
    """The Job of onSuccess."""
    return f"{study}-final"


def labels(study: str, group: int | None = None) -> dict[str, str]:
    """Labels of everything that is made for a study, or for one of its groups."""
    result = {LABEL_STUDY: study, LABEL_MANAGED_BY: FIELD_MANAGER}
    return result if group is None else {**result, LABEL_GROUP: str(group)}


def queueing(study: Resource, nodes: int, scheduler: str) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations of a Job for Kueue and Volcano.

    Args:
        nodes: pods of the Job, which are of no use one by one.
        scheduler: of the pods.
    """
    labels, annotations = (
        {key: value for key, value in (study["metadata"].get(what) or {}).items() if key.startswith(_QUEUES)}
        for what in ("labels", "annotations")
    )
    gang = {MIN_MEMBER: str(nodes)} if scheduler == VOLCANO else {}
    return labels, {**gang, **annotations}


def owner(study: Resource) -> Resource:
    """What makes the garbage collector remove an object together with the study."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": study["metadata"]["name"],
        "uid": study["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def owner_of(study: Metadata) -> Resource:
    """The study as one of several owners, the last of which takes the object along."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": study.name, "uid": study.uid}


def is_owned(resource: Resource, study: Resource) -> bool:
    """Whether the object was made for this very study, not for an earlier one of the same name or by someone else."""
    references = resource["metadata"].get("ownerReferences", [])
    return any(reference["uid"] == study["metadata"]["uid"] for reference in references)
