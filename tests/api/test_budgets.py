"""What ends a study, and how it goes on: a real API server and PostgreSQL, the operator as a process; no worker."""

from datetime import timedelta
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import text

from hpstudy.storage import attributes
from tests.api.harness import Team, eventually, study

HOUR = timedelta(hours=1)
GPUS = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"nvidia.com/gpu": 4}}}]}}


def age(team: Team, by: timedelta) -> None:
    """Have all trials begun so much earlier."""
    with team.trials() as trials:
        engine = trials._storage._backend.engine  # type: ignore[attr-defined]
        with engine.begin() as connection:
            connection.execute(text("update trials set datetime_start = datetime_start - :by"), {"by": by})


def goes_on(team: Team, spec: dict[str, Any]) -> None:
    """Change the study that has ended, and see it run again."""
    before = team.job()["metadata"]["uid"]
    team.end_pods(0)
    team.edit(spec)
    team.until("Running", "False", "WaitingForWorkers")
    team.until("Succeeded", "False", "NotFinished")
    eventually(lambda: team.job()["metadata"]["uid"] != before, "another Job")


def test_a_timeout_ends_the_study_without_a_worker_until_it_is_raised(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10, "timeout": "1h"}))
    served.until("StorageReady", "True")
    served.job()
    served.complete(0.5, 0.75)
    age(served, HOUR)
    served.poke()
    ended = served.until("Succeeded", "True", "TimeoutReached")
    assert ended["message"] == "the timeout of 1h since the first trial began was over after 2 of 10 trials"
    assert served.status()["progress"] == "2/10"
    goes_on(served, {"budget": {"timeout": "3h"}})
    age(served, 3 * HOUR)
    served.poke()
    served.until("Succeeded", "True", "TimeoutReached")


def test_a_timeout_before_any_trial_is_complete_fails_the_study(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10, "timeout": "1h"}))
    served.until("StorageReady", "True")
    with served.trials() as trials:
        trial = trials.ask()
        trial.set_user_attr(attributes.FAILURE, "error")
        trial.set_user_attr(attributes.MESSAGE, "boom")
        trials.tell(trial, state=TrialState.FAIL)
    age(served, HOUR)
    served.poke()
    failed = served.until("Failed", "True", "TimeoutReached")
    assert "before a trial was complete" in failed["message"]


def test_gpu_hours_end_the_study_until_they_are_raised(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10, "gpuHours": 4}, workers={"template": GPUS}))
    served.until("StorageReady", "True")
    assert "--gpus" in served.job()["spec"]["template"]["spec"]["containers"][0]["args"]
    with served.trials() as trials:
        trial = trials.ask()
        trial.set_user_attr(attributes.GPUS, 4)
        trials.tell(trial, 0.5)
    age(served, HOUR)
    served.poke()
    ended = served.until("Succeeded", "True", "GpuHoursReached")
    assert ended["message"] == "4 of 4 GPU hours were used after 1 of 10 trials"
    goes_on(served, {"budget": {"gpuHours": 4.5}})


def test_gpu_hours_without_gpus_are_refused_and_nothing_starts(served: Team) -> None:
    served.apply(study(budget={"gpuHours": 4}))
    refused = served.until("Accepted", "False", "InvalidSpec")
    assert "budget.gpuHours: the worker container of workers.template has no limit of GPUs" in refused["message"]
    assert served.names("jobs") == []


def test_a_goal_ends_the_study_until_it_is_a_better_one(served: Team) -> None:
    objective = {"metric": "eval_f1", "direction": "maximize"}
    served.apply(study(objectives=[objective | {"goal": 0.9}]))
    served.until("StorageReady", "True")
    served.job()
    served.complete(0.5, 0.95)
    served.poke()
    ended = served.until("Succeeded", "True", "GoalReached")
    assert ended["message"] == "trial 1 reached the goal: eval_f1 0.95 >= 0.9"
    goes_on(served, {"objectives": [objective | {"goal": 0.99}]})
    with served.trials() as trials:
        told = trials.user_attrs[attributes.SETTINGS]
    assert told["objectives"][0]["goal"] == 0.99, "workers hear of it, too"
