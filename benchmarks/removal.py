"""python -m benchmarks.removal [--trials N]: how long it takes to remove a study from PostgreSQL.

Trials with five hyperparameters, ten reports, four attributes and a value, beside another study of the same size;
against Optuna's own ``delete_study`` on a tenth of the trials.
"""

import argparse
import time
from collections.abc import Sequence

import optuna
from sqlalchemy import text

from benchmarks.tables import print_table, save
from hpstudy.storage.opening import open_storage
from hpstudy.storage.removal import remove_study
from tests.support.postgres import postgres

_FILL = (
    "insert into trials (number, study_id, state, datetime_start, datetime_complete)"
    " select n, :study, 'COMPLETE', now(), now() from generate_series(0, :trials - 1) n",
    "insert into trial_params (trial_id, param_name, param_value, distribution_json)"
    """ select trial_id, 'p' || k, k, '{"name": "FloatDistribution"}' from trials, generate_series(1, 5) k"""
    " where study_id = :study",
    "insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
    " select trial_id, k, k, 'FINITE' from trials, generate_series(1, 10) k where study_id = :study",
    "insert into trial_user_attributes (trial_id, key, value_json)"
    " select trial_id, 'a' || k, '1' from trials, generate_series(1, 4) k where study_id = :study",
    "insert into trial_values (trial_id, objective, value, value_type)"
    " select trial_id, 0, 0.5, 'FINITE' from trials where study_id = :study",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=15_000)
    trials = parser.parse_args(arguments).trials
    with postgres() as server:
        storage = open_storage(server.create_database("removal"))
        for name, count in (("ours", trials), ("neighbour", trials), ("optuna", trials // 10)):
            study = optuna.create_study(study_name=name, storage=storage)
            with storage.engine.begin() as connection:
                for statement in _FILL:
                    connection.execute(text(statement), {"study": study._study_id, "trials": count})
        started = time.monotonic()
        with storage.engine.begin() as connection:
            remove_study(connection, "ours")
        ours = time.monotonic() - started
        started = time.monotonic()
        optuna.delete_study(study_name="optuna", storage=storage)
        theirs = time.monotonic() - started
        storage.engine.dispose()
    seconds = {f"removed, {trials} trials": [ours], f"Optuna's delete_study, {trials // 10} trials": [theirs]}
    print_table("Removing a study", seconds)
    save("removal", {"seconds": seconds})


if __name__ == "__main__":
    main()
