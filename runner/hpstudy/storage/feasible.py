"""Which trials are a study's results: complete ones of its own within its constraints, in SQL and in Python."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.storage import attributes

FEASIBLE = """
    t.state = 'COMPLETE'
    and not exists (select 1 from trial_user_attributes w where w.trial_id = t.trial_id and w.key = :taken)
    and not exists (
        select 1 from trial_system_attributes c where c.trial_id = t.trial_id
        and case when c.key like :constraint then cast(c.value_json as float) > 0 else false end
    )
"""
"""Of a row of ``trials t``. Optuna's columns: a constraint above 0 is broken."""
FEASIBLE_NAMES = {"taken": attributes.TAKEN_FROM, "constraint": attributes.CONSTRAINT_PREFIX + "%"}


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
