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
    made_from = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={*LIVE, *OPERATORS_OWN})
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:_DIGITS]
