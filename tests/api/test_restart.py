"""The operator keeps nothing in memory: killed at any point, it goes on from what it finds."""

import signal
import time
from datetime import UTC, datetime, timedelta

from tests.api.harness import Operator, Team, eventually, study
from tests.support.postgres import Postgres


def test_an_operator_that_was_killed_writes_nothing_again(served: Team, operator: Operator) -> None:
    served.apply(study(parallelism=2))
    served.until_names("jobs", "reviews-0", "reviews-1")
    served.run_pods("reviews-0")
    served.run_pods("reviews-1")
    served.complete(0.5)
    served.poke()
    eventually(lambda: served.status().get("progress") == "1/10", "progress")
    served.stays_quiet()
    before = served.versions()

    operator.stop(signal.SIGKILL)
    operator.start()
    served.stays_quiet()
    study_ = ("hpstudies", "reviews")
    assert {**served.versions(), study_: ""} == {**before, study_: ""}


def test_an_operator_that_is_killed_while_it_makes_things_ends_up_with_the_same(
    served: Team, operator: Operator
) -> None:
    for index in range(4):
        served.apply(study(f"s{index}", parallelism=3))
        operator.stop(signal.SIGKILL)
        operator.start()
    groups = [f"s{study_}-{group}" for study_ in range(4) for group in range(3)]
    served.until_names("jobs", *groups)
    served.until_names("services", *groups)


def test_what_happened_while_the_operator_was_away_is_seen(served: Team, operator: Operator) -> None:
    served.apply(study(budget={"maxTrials": 2}))
    served.run_pods()
    served.until("Running", "True")
    operator.stop(signal.SIGKILL)
    served.complete(0.5, 0.6)
    served.kubectl.delete("service", "reviews-0")
    operator.start()
    served.until("Succeeded", "True")
    assert served.status()["progress"] == "2/2"


def test_a_settled_study_costs_no_write_and_no_look_at_its_storage(
    served: Team, operator: Operator, database: Postgres
) -> None:
    served.apply(study(budget={"maxTrials": 1}))
    served.run_pods()
    served.complete(0.5)
    served.poke()
    served.until("Succeeded", "True")
    # As if it had been over for an hour, with a worker that did not end.
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    served.api.patch("hpstudies", served.namespace, "reviews", {"status": {"completionTime": long_ago}})
    served.until_names("jobs")
    operator.stop(signal.SIGKILL)
    operator.start()
    served.stays_quiet()
    role = f"hpstudy_{served.namespace}"
    assert database.sql(f"select count(*) from pg_stat_activity where usename = '{role}'") == "0"


def test_a_database_that_is_away_for_a_while_changes_one_condition(served: Team, database: Postgres) -> None:
    served.apply(study())
    served.run_pods()
    served.complete(0.5)
    served.poke()
    eventually(lambda: served.status().get("progress") == "1/10", "progress")
    uid = served.job()["metadata"]["uid"]
    database.stop(signal.SIGINT)  # an orderly end: a crash may lose the last commits of a server without fsync
    try:
        served.poke()
        served.until("StorageReady", "False", "StorageUnreachable")
        # A pass that was reading when the server went says that it closed the connection; the next ones cannot connect.
        eventually(
            lambda: "connection to server" in served.condition("StorageReady")["message"], "the database's own words"
        )
        assert served.status()["progress"] == "1/10"
        assert served.condition("Running")["status"] == "True"
    finally:
        database.start()
    served.until("StorageReady", "True")
    assert served.job()["metadata"]["uid"] == uid
    served.complete(0.6)
    served.poke()
    eventually(lambda: served.status().get("progress") == "2/10", "progress")


def test_the_operator_stops_when_told_to(operator: Operator) -> None:
    started = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - started < 8
    operator.start()
