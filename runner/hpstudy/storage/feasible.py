"""Which trials are a study's results: complete ones of its own within its constraints, in SQL and in Python."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.storage import attributes

FEASIBLE = """
    t.state = 'COMPLETE'
    and not exists (select 1 from trial_user_attributes w where w.trial_id = t.trial_id and w.key = :taken)
    and not exists (
        select 1 from trial_system_attributes c where c.trial_id = t.trial_id
        and c.key like :constraint and c.value_json not like :negative and c.value_json not in ('0', '0.0')
    )
"""
"""Of a row of ``trials t``. Optuna's columns: a constraint above 0 is broken.

By its JSON, whose sign is its first character: the databases share no cast to double precision, and MySQL's to float
fails above 3.4e38."""
FEASIBLE_NAMES = {
    "taken": attributes.TAKEN_FROM,
    "constraint": attributes.CONSTRAINT_PREFIX + "%",
    "negative": "-%",
}


def is_feasible(trial: FrozenTrial) -> bool:
    """Of a trial in memory."""
    return (
        trial.state is TrialState.COMPLETE
        and attributes.TAKEN_FROM not in trial.user_attrs
        and all(value <= 0 for value in trial.constraints.values())
    )


def feasible_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All of a study."""
    return [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if is_feasible(trial)]
