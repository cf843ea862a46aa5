"""Worker groups and their database: passwords that change, connections that are counted, MariaDB."""

import contextlib
from pathlib import Path

import optuna
from sqlalchemy.engine import make_url

from hpstudy.api.exits import EXIT_PREEMPTED
from tests.ranks.groups import Group, eventually, group
from tests.ranks.test_leaving import told
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres


def role(database: Postgres, name: str) -> str:
    """The URL of a role with a database of its own."""
    database.create_database(name)
    database.sql(f"create role \"{name}\" login password 'old'")
    database.sql(f'grant all on schema public to "{name}"', name)
    return database.url(name, name, "old")


def sessions(database: Postgres, name: str) -> int:
    return int(
        database.sql(f"select count(*) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()")
    )


def test_a_worker_whose_password_was_changed_leaves_and_its_successor_loses_nothing(
    tmp_path: Path, database: Postgres
) -> None:
    name = "rotated"
    url = role(database, name)
    with group(tmp_path, "square", url=url, budget={"maxTrials": 1000}) as old:
        eventually(lambda: _completed(old) >= 3)
        database.sql(f"alter role \"{name}\" password 'new'")
        # The sessions that are there would go on for ever; a fail-over of the database ends them.
        database.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'")
        assert old.join(180) == [EXIT_PREEMPTED]
        old.url = database.url(name, name, "new")
        wanted = _completed(old) + 3
    with group(tmp_path, "square", url=old.url, budget={"maxTrials": wanted}) as new:
        assert new.join() == [0]
        states = new.states()
    assert states.count("COMPLETE") == wanted
    assert set(states) <= {"COMPLETE", "FAIL"}
    assert states.count("FAIL") <= 1  # the trial in flight, which ran again


def test_the_pods_of_a_group_come_to_the_new_password_one_after_the_other(tmp_path: Path, database: Postgres) -> None:
    """Their key is made from the password: one that started with the old does not know the replacement of node 0."""
    name = "rotated_two"
    url = role(database, name)
    with group(tmp_path, "square", url=url, nodes=2, budget={"maxTrials": 1000}) as made:
        eventually(lambda: _completed(made) >= 3)
        database.sql(f"alter role \"{name}\" password 'new'")
        database.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'")
        made.pods[0].join(60)
        assert made.pods[0].exitcode == EXIT_PREEMPTED
        made.url = database.url(name, name, "new")
        wanted = _completed(made) + 3
        told(made, budget=made.study.spec.budget.model_copy(update={"max_trials": wanted}))
        made.start(0)
        made.pods[1].join(120)
        assert made.pods[1].exitcode == EXIT_PREEMPTED
        made.start(1)
        assert made.join() == [0, 0]
        states = made.states()
    assert states.count("COMPLETE") == wanted
    assert set(states) <= {"COMPLETE", "FAIL"}
    assert states.count("FAIL") <= 1


def test_a_pod_that_comes_back_with_the_new_password_is_not_refused_for_ever(
    tmp_path: Path, database: Postgres
) -> None:
    """Node 0 has only its open session, which outlives the password, and would wait for the other with the old key."""
    name = "rotated_other"
    url = role(database, name)
    with group(tmp_path, "square", url=url, nodes=2, budget={"maxTrials": 1000}) as made:
        eventually(lambda: _completed(made) >= 1)
        database.sql(f"alter role \"{name}\" password 'new'")
        made.kill(1)
        made.url = database.url(name, name, "new")
        made.start(1)
        made.pods[0].join(60)
        assert made.pods[0].exitcode == EXIT_PREEMPTED
        wanted = _completed(made) + 1
        told(made, budget=made.study.spec.budget.model_copy(update={"max_trials": wanted}))
        made.start(0)
        assert made.join() == [0, 0]
        assert made.states().count("COMPLETE") == wanted


def test_a_pod_that_comes_back_with_another_host_of_the_database_joins_the_others(
    tmp_path: Path, database: Postgres
) -> None:
    """The operator's database got another name, say, and by the old one it can still be reached."""
    name = "moved"
    url = role(database, name)
    with group(tmp_path, "square", url=url, nodes=2, budget={"maxTrials": 1000}) as made:
        eventually(lambda: _completed(made) >= 1)
        made.kill(1)
        made.url = make_url(url).set(host="localhost").render_as_string(hide_password=False)
        assert made.url != url
        wanted = _completed(made) + 3
        told(made, budget=made.study.spec.budget.model_copy(update={"max_trials": wanted}))
        made.start(1)
        assert made.join() == [0, 0]  # node 0 is the one of the start
        assert made.states().count("COMPLETE") == wanted


def _completed(made: Group) -> int:
    try:
        return made.states().count("COMPLETE")
    except KeyError:  # the study is not there yet
        return 0


def test_a_group_holds_two_connections_and_a_third_while_it_opens_the_storage(
    tmp_path: Path, database: Postgres
) -> None:
    name, groups = "counted", 3
    url = database.create_database(name)
    shared = {"url": url, "parallelism": groups, "budget": {"maxTrials": 60}}
    counts = []
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(group(tmp_path, "square", index=index, **shared)) for index in range(groups)]
        while any(pod.is_alive() for each in made for pod in each.pods.values()):
            counts.append(sessions(database, name))
    assert max(counts) <= 3 * groups
    steady = max(set(counts) - {0}, key=counts.count)
    assert steady == 2 * groups


def test_groups_share_a_budget_exactly_over_mariadb(tmp_path: Path, maria: MariaDB) -> None:
    url = maria.create_database("shared")
    with (
        group(tmp_path, "square", url=url, index=0, parallelism=2, budget={"maxTrials": 7}) as one,
        group(tmp_path, "square", url=url, index=1, parallelism=2, budget={"maxTrials": 7}) as two,
    ):
        assert one.join() == two.join() == [0]
        trials = one.trials()
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 7
    assert maria.sql("select count(*) from information_schema.processlist where db = 'shared'") == ((0,),)
