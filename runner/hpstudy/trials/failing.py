"""The end of a trial without values: its class is recorded, its parameters are queued again while it has retries."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api.retries import Retries
from hpstudy.storage import attributes
from hpstudy.storage.attributes import WORKER_ENDED, Failure
from hpstudy.trials.outcome import Outcome
from hpstudy.trials.retries import give_up_message, has_retry


def fail_trial(
    study: optuna.Study,
    trial: FrozenTrial,
    outcome: Outcome,
    retries: Retries,
    *,
    continues: int | None,
    began: bool = True,
) -> bool:
    """End a running trial as FAIL; returns whether it runs again. Safe to be done anew by who finds it half done.

    Args:
        continues: whose last checkpoint another run starts from.
        began: whether it may have trained. One whose making failed does not run again; one whose making an outage cut
            off does in any case, and continues what it would have continued.
    """
    storage, trial_id = study._storage, trial._trial_id
    failure, message = outcome.failure, outcome.message
    assert failure is not None
    runs = [*trial.user_attrs.get(attributes.RUNS, []), trial.number]
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    earlier = [Failure(other.user_attrs[attributes.FAILURE]) for other in trials if other.number in runs[:-1]]
    again = has_retry(failure, earlier, retries) if began else failure in WORKER_ENDED
    if not again:
        message = give_up_message(message, len(runs))
    storage.set_trial_user_attr(trial_id, attributes.MESSAGE, message)
    storage.set_trial_user_attr(trial_id, attributes.FAILURE, failure.value)
    if again:
        storage.set_trial_user_attr(trial_id, attributes.AGAIN, True)
        # Those that it came with too: it may have died before it had asked for them.
        parameters = {**trial.system_attrs.get(attributes.FIXED, {}), **trial.params}
        # Before the trial ends: a process that dies in between leaves a trial that its successor ends, not parameters
        # that nobody runs again.
        if parameters and not any(other.user_attrs.get(attributes.RUNS) == runs for other in trials):
            if not began:
                continues = trial.user_attrs.get(attributes.CONTINUES)
            attrs = {attributes.RUNS: runs, attributes.CONTINUES: continues}
            if outcome.alone or attributes.ALONE in trial.user_attrs:
                attrs[attributes.ALONE] = True
            study.enqueue_trial(parameters, user_attrs=attrs)
    study.tell(trial.number, state=TrialState.FAIL)
    return again


def queue_next(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the trial that carries on one of population based training, before that one ends. Safe to be done again."""
    record = trial.user_attrs[attributes.NEXT]
    for other in study._storage.get_all_trials(study._study_id, deepcopy=False):
        if other.user_attrs.get(attributes.POPULATION, {}).get("after") == trial.number:
            return
    attrs = {attributes.CONTINUES: record["continues"], attributes.POPULATION: record["population"]}
    study.enqueue_trial(record["parameters"], user_attrs=attrs)
