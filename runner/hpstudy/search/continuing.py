"""How far a search is, and how one that was there before goes on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.plan import Plan, with_trials
from hpstudy.search.sweeps import with_labels
from hpstudy.storage import attributes
from hpstudy.storage.opening import open_storage


def continued(plan: Plan) -> Plan:
    """The plan of a search before that goes on by so many trials more (``sweep_id``), or that must not be there.

    Raises:
        InvalidStudyError: it is not there, or there.
    """
    storage = open_storage(plan.url)
    try:
        names = optuna.study.get_all_study_names(storage)
        if not plan.options.sweep_id:
            if plan.name in names:
                message = f"study_name: there is a study {plan.name!r}; load_if_exists=True continues it"
                raise InvalidStudyError(reasons.INVALID_OPTION, message)
            return plan
        if plan.name not in names:
            raise InvalidStudyError(
                reasons.INVALID_OPTION,
                f"sweep_id: the storage has no search {plan.name!r}; a sweep id is the run_summary of an earlier "
                "search with the same storage or output_dir",
            )
        study = optuna.load_study(study_name=plan.name, storage=storage)
        trials = count_done(study, plan) + plan.spec.budget.max_trials
        return with_trials(replace(plan, spec=with_labels(plan.spec, study)), trials)
    finally:
        storage.engine.dispose()


def count_done(study: optuna.Study, plan: Plan) -> int:
    """Trials that count towards ``n_trials``: with ``catch`` those too that failed by a fault of their own, as in
    Optuna."""
    failed = [] if plan.options.catch is None else [TrialState.FAIL]
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, *failed))
    return sum(_counts(trial.user_attrs) for trial in trials)


def _counts(of_trial: Mapping[str, Any]) -> bool:
    return not attributes.runs_again(of_trial) and of_trial.get(attributes.FAILURE) not in attributes.WORKER_ENDED
