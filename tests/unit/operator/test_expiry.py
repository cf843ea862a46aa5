"""When a study with ttlSecondsAfterFinished is deleted."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy_operator.deletion import FINAL_PATIENCE, START_PATIENCE, expiry
from tests.unit.operator.objects import EARLIER, study
from tests.unit.operator.objects import over as ended

TTL = 60
ON_SUCCESS: dict[str, Any] = {"template": {}}
LATER = EARLIER + timedelta(seconds=600)


def over(condition: str = "Succeeded", record: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    reason = reasons.MAX_TRIALS_REACHED if condition == "Succeeded" else reasons.MAX_FAILED_TRIALS_EXCEEDED
    made = ended(study(**({"ttlSecondsAfterFinished": TTL} | spec)), condition, reason, completed=EARLIER)
    if record is not None:
        made["status"]["onSuccess"] = record
    return made


def final(state: str, **more: Any) -> dict[str, Any]:
    return {"job": "reviews-final", "trial": 4, "state": state, **more}


WITHOUT = {key: value for key, value in final("Pending").items() if key != "trial"}
AT_ITS_END = EARLIER + timedelta(seconds=TTL)
CASES: dict[str, tuple[dict[str, Any], datetime | None]] = {
    "it runs": (study(ttlSecondsAfterFinished=TTL), None),
    "no time to live": (over(ttlSecondsAfterFinished=None), None),
    "succeeded": (over(), AT_ITS_END),
    "failed": (over("Failed"), AT_ITS_END),
    "failed, so that the final Job is not made": (over("Failed", onSuccess=ON_SUCCESS), AT_ITS_END),
    "the final Job is not there yet": (over(onSuccess=ON_SUCCESS), None),
    "the final Job runs": (over(record=final("Running"), onSuccess=ON_SUCCESS), None),
    "the final Job ended": (
        over(record=final("Failed", completionTime=LATER.isoformat()), onSuccess=ON_SUCCESS),
        LATER + timedelta(seconds=TTL),
    ),
    "there was nothing to make the final Job of": (
        over(record={**WITHOUT, "state": "Failed", "completionTime": LATER.isoformat()}, onSuccess=ON_SUCCESS),
        LATER + timedelta(seconds=TTL),
    ),
    "the final Job is refused": (
        over(record=final("Pending", message="the Job is refused: no quota"), onSuccess=ON_SUCCESS),
        AT_ITS_END + FINAL_PATIENCE,
    ),
    "a queue holds the final Job": (
        over(
            record=final("Pending", message="the Job is suspended", startTime=EARLIER.isoformat()), onSuccess=ON_SUCCESS
        ),
        None,
    ),
    "no pod of the final Job has started": (
        over(
            record=final("Pending", startTime=EARLIER.isoformat(), waitingSince=LATER.isoformat()), onSuccess=ON_SUCCESS
        ),
        LATER + START_PATIENCE + timedelta(seconds=TTL),
    ),
    "no pod of the final Job had started, long before the study went on and ended": (
        over(record=final("Pending", waitingSince=(EARLIER - 2 * START_PATIENCE).isoformat()), onSuccess=ON_SUCCESS),
        AT_ITS_END,
    ),
    "the final Job is no longer asked for": (over(record=final("Running")), AT_ITS_END),
}


@pytest.mark.parametrize(("resource", "at"), CASES.values(), ids=CASES.keys())
def test_it_counts_from_the_end_of_everything_that_the_study_started(
    resource: dict[str, Any], at: datetime | None
) -> None:
    assert expiry(resource) == at
