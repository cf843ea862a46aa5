"""What a running worker group takes on of a changed study, and what it has to start again for."""

import hashlib
import json

from hpstudy.api.study import StudySpec

LIVE = ("retries", "parallelism", "budget", "objectives", "suspend")
"""Fields that running groups are told of (``hpstudy:settings``). Of the objectives only goals and
references change."""
OPERATORS_OWN = ("on_success", "deletion_policy", "ttl_seconds_after_finished")
"""Fields that workers know nothing of."""
_DIGITS = 10


def revision(spec: StudySpec) -> str:
    """A name for what a worker group is made from: the spec without those fields, in short.

    Fields at their defaults are left out, so that a newer operator, with more of them, comes to the same: its upgrade
    must not restart anything.
    """
    return _digest(spec, {*LIVE, *OPERATORS_OWN})


def fingerprint(spec: StudySpec) -> str:
    """A name for all that a study asks of its workers: what they are made from, and what they are told of."""
    return _digest(spec, {*OPERATORS_OWN})


def _digest(spec: StudySpec, left_out: set[str]) -> str:
    said = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:_DIGITS]
