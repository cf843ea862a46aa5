"""Groups, each a process of its own, that share one study's budget."""

import time
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState

from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude
from tests.storage.stored import NAME, trials_of
from tests.support.forkserver import PROCESSES

GROUPS = 8
GOAL_AT = 12


def run_group(url: str, group: int, study: StudySpec, fails: float, expected: str) -> None:
    """Trials whose loss falls with their numbers; every so many-th fails, every fifth of the others is pruned."""
    with TrialLoop(study, url, NAME, group) as loop:
        while True:
            assigned = loop.next()
            if isinstance(assigned, Verdict):
                if assigned.next is Next.WAIT:
                    time.sleep(0.01)
                    continue
                assert assigned.reason == expected, assigned
                return
            outcome = conclude({"loss": float(GOAL_AT - assigned.number)}, study)
            if assigned.number % fails == fails - 1:
                outcome = Outcome(failure=Failure.ERROR, message="no luck")
            elif assigned.number % 5 == 0:
                loop.report(assigned, 1, {"loss": 2.0})
                outcome = Outcome(pruned=True)
            loop.tell(assigned, outcome)


def share(url: str, study: StudySpec, fails: float, expected: str) -> Sequence[optuna.trial.FrozenTrial]:
    """The trials, after all groups have ended for this reason."""
    groups = 2 if url.startswith("sqlite") else GROUPS
    arguments = [(url, group, study, fails, expected) for group in range(groups)]
    processes = [PROCESSES.Process(target=run_group, args=each) for each in arguments]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(300)
            assert process.exitcode == 0
    finally:
        for process in processes:  # those that are still alive; pytest would wait for them at its end
            process.kill()
            process.join()
    trials = trials_of(url)
    assert not [trial for trial in trials if trial.state is TrialState.RUNNING]
    return trials
