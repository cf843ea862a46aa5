"""Failures by class, as a worker group meets them: real processes, real gloo, real SQLite."""

from datetime import UTC, datetime
from pathlib import Path

import optuna

from hpstudy.api.status import TrialCounts
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import read_snapshot
from hpstudy.storage.settings import record_settings
from tests.ranks.groups import Group, eventually, group


def counts(made: Group) -> TrialCounts:
    storage = open_storage(made.url)
    try:
        return read_snapshot(storage, "study", made.study.spec).counts
    finally:
        storage.engine.dispose()


def ended(made: Group) -> list[tuple[str, str]]:
    """Class and message of the trials that failed."""
    failed = [trial.user_attrs for trial in made.trials() if trial.state.name == "FAIL"]
    return [(attrs[attributes.FAILURE], attrs[attributes.MESSAGE]) for attrs in failed]


def test_parameters_run_again_by_class_until_they_are_given_up(tmp_path: Path) -> None:
    retries = {"error": 1, "metricMissing": 1}
    with group(
        tmp_path, "unlucky", processes=2, budget={"maxTrials": 2, "maxFailedTrials": 1}, retries=retries
    ) as made:
        assert made.join() == [0]
        assert ended(made) == [
            ("error", "ValueError: no luck"),
            ("metric-missing", "metric 'loss' is nan, it must be a finite number"),
            ("error", "rank 1 was ended by SIGKILL; given up after 3 runs"),
        ]
        first, second, third, *others = (trial.params for trial in made.trials())
        assert first == second == third
        assert first not in others
        continued = [(tmp_path / f"continues-{number}").read_text() for number in range(5)]
        assert continued == ["None", "0", "1", "None", "None"]
        assert counts(made) == TrialCounts(total=5, complete=2, failed=1, retried=2)


def test_a_pod_that_was_killed_for_its_memory_is_an_oom_of_its_trial(tmp_path: Path) -> None:
    """Node 1's; the operator says so a moment after the driver lost the connection."""
    budget = {"maxTrials": 1, "maxFailedTrials": 0}
    with group(tmp_path, "slow", nodes=2, budget=budget, retries={"oom": 1}) as made:
        eventually((tmp_path / "began-0-1").exists)
        storage = open_storage(made.url)
        stored = optuna.load_study(study_name="study", storage=storage)
        record_settings(stored, made.study.spec)
        made.kill(1)
        message = "the worker of pod study-0-1 needed more memory than its limit of 1Gi (OOMKilled)"
        record_end(stored, 0, PodEnd(uid="1", failure=Failure.OOM, message=message, at=datetime.now(UTC)))
        storage.engine.dispose()
        eventually(lambda: made.states()[0] == "FAIL")
        made.start(1)
        assert made.join() == [0, 0]
        assert ended(made) == [("oom", message)]
        assert counts(made) == TrialCounts(total=2, complete=1, retried=1)
