"""python -m benchmarks.scale [--studies N] [--samples N]: the operator with many studies.

Against a real API server, Job controller and PostgreSQL, with the operator as a process of its own; there are no nodes,
and the benchmark plays kubelet and worker. It measures, with none and with N studies running in tens of namespaces,
the time from applying a study to its Job, and from the end of a trial (its commit) to the status that counts it; what
the operator asks and writes while nothing happens, with running studies and with settled ones; and its memory, also
with 15 and 15,000 trials in one study.
"""

import argparse
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import psutil

from benchmarks.tables import save
from hpstudy.api.load import parse_study
from hpstudy.api.names import stored_study_name
from tests.api.client import Api
from tests.api.harness import Operator, Team, study
from tests.api.installed import SYSTEM, installed_server
from tests.support.postgres import Postgres, postgres

NAMESPACES = 20
PATIENCE = 900.0  # seconds; until something counts as not happening
REST = 60.0  # seconds; how long it is watched doing nothing
FOLLOWED = 30  # seconds of calm before that
THREADS = 8
OBJECTS = "hpstudies|jobs|services|configmaps|secrets|events|pods"
_REQUESTS = re.compile(rf'^apiserver_request_total{{(?=.*resource="(?:{OBJECTS})")(.*verb="([A-Z]+)".*)}} (\S+)$', re.M)
READS, WRITES = frozenset({"GET", "LIST"}), frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})

_TRIALS = """
    set search_path to "{schema}";
    with made as (
        insert into trials (number, study_id, state, datetime_start, datetime_complete)
        select n, study_id, 'COMPLETE', now(), now() from studies, generate_series({first}, {last}) n
        where study_name = '{study}' returning trial_id, number
    ), valued as (
        insert into trial_values (trial_id, objective, value, value_type)
        select trial_id, 0, number / 100000.0, 'FINITE' from made
    ), suggested as (
        insert into trial_params (trial_id, param_name, param_value, distribution_json)
        select trial_id, 'lr', 0.01, '{{"name": "FloatDistribution", "attributes":
            {{"step": null, "low": 0.001, "high": 0.1, "log": false}}}}' from made
    ), reported as (
        insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
        select trial_id, step, 0.5, 'FINITE' from made, generate_series(1, 20) step
    )
    insert into trial_user_attributes (trial_id, key, value_json) select trial_id, 'hpstudy:group', '0' from made
"""


class Bench:
    """The operator, and who plays user, kubelet and worker."""

    def __init__(self, api: Api, operator: Operator, database: Postgres) -> None:
        self.api, self.operator, self.database = api, operator, database
        self.teams = [Team(f"bench-{index}", api, None) for index in range(NAMESPACES)]  # type: ignore[arg-type]
        self._numbers = count()

    def apply(self, **spec: Any) -> tuple[Team, str]:
        """Apply a study in one of the namespaces."""
        number = next(self._numbers)
        team, name = self.teams[number % NAMESPACES], f"s{number}"
        refused = self.api.create("hpstudies", team.namespace, study(name, **spec))
        assert not refused, refused
        return team, name

    def job_times(self, samples: int) -> list[float]:
        """Seconds from applying a study until its Job exists."""
        return [self._time_to_job() for _ in range(samples)]

    def fill(self, studies: int) -> list[tuple[Team, str]]:
        """Apply studies, wait for their pods and declare those ready."""
        with ThreadPoolExecutor(THREADS) as pool:
            made = list(pool.map(lambda _: self.apply(budget={"maxTrials": 20_000}), range(studies)))
        until(lambda: all(len(self.api.list("pods", t.namespace)) >= studies // NAMESPACES for t in self.teams))
        self._start_pods()
        until(lambda: self._count("Running") >= studies)
        return made

    def follow_times(self, studies: list[tuple[Team, str]], samples: int) -> list[float]:
        """Seconds from the commit of a trial's end until the status counts it."""
        seconds = []
        for team, name in random.Random(0).sample(studies[1:], samples):
            with opened(team, name) as trials:
                trial = trials.ask()
                trial.suggest_float("lr", 0.001, 0.1)
                time.sleep(random.uniform(1, 3))  # its start was seen, and polls come at any time
                trials.tell(trial, 0.5)
            started = time.monotonic()
            until(lambda t=team, n=name: t.status(n).get("trials", {}).get("complete"), every=0.01)  # type: ignore[misc]
            seconds.append(time.monotonic() - started)
        return seconds

    def at_rest(self) -> dict[str, float]:
        """Requests a minute to the API server, and transactions a minute of the database, while nothing happens."""
        before = -1.0
        while before != (before := self._sum(WRITES)):  # until what went before is over
            time.sleep(FOLLOWED)
        reads, writes, queries = self._sum(READS), self._sum(WRITES), self._transactions()
        cpu = self._process().cpu_times()
        started = time.monotonic()
        time.sleep(REST)
        minutes = (time.monotonic() - started) / 60
        after = self._process().cpu_times()
        return {
            "reads": (self._sum(READS) - reads) / minutes,
            "writes": (self._sum(WRITES) - writes) / minutes,
            "transactions": (self._transactions() - queries) / minutes,
            "cpu seconds": (after.user + after.system - cpu.user - cpu.system) / minutes,
            "connections": float(self.database.sql("select count(*) from pg_stat_activity where usename is not null")),
        }

    def insert_trials(self, team: Team, name: str, first: int, last: int) -> None:
        """Complete trials, as if a worker had run them long ago."""
        stored = stored_study_name(parse_study(team.study(name)).metadata)
        schema = f"hpstudy_{team.namespace}"
        self.database.sql(_TRIALS.format(schema=schema, study=stored, first=first, last=last - 1))
        team.poke(name)
        until(lambda: team.status(name).get("trials", {}).get("complete") == last)
        for _ in range(20):  # looks, as more trials would cause them
            team.poke(name)
            time.sleep(0.3)

    def settle(self) -> None:
        """End all studies, an hour ago."""
        studies = [(team, found) for team in self.teams for found in self.api.list("hpstudies", team.namespace)]
        for team, found in studies:
            name = found["metadata"]["name"]
            if not found.get("status", {}).get("trials", {}).get("complete"):
                stored = stored_study_name(parse_study(found).metadata)
                sql = _TRIALS.format(schema=f"hpstudy_{team.namespace}", study=stored, first=0, last=0)
                self.database.sql(sql)
            team.edit({"budget": {"maxTrials": 1}}, name)
        until(lambda: self._count("Succeeded") == len(studies), every=5)
        long_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for team, found in studies:
            change = {"status": {"completionTime": long_ago}}
            self.api.patch("hpstudies", team.namespace, found["metadata"]["name"], change)

    def memory(self) -> float:
        """Of the operator, in MiB: resident."""
        return float(self._process().memory_info().rss) / 2**20

    def _process(self) -> psutil.Process:
        assert self.operator._process is not None
        process = psutil.Process(self.operator._process.pid)
        return next(
            (p for p in [process, *process.children(recursive=True)] if "hpstudy-operator" in p.name()), process
        )

    def _start_pods(self) -> None:
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        with ThreadPoolExecutor(THREADS) as pool:
            for team in self.teams:
                list(pool.map(lambda pod, team=team: team.set_pod(pod, ready), self.api.list("pods", team.namespace)))

    def _time_to_job(self) -> float:
        started = time.monotonic()
        team, name = self.apply()
        until(lambda: self.api.find("jobs", team.namespace, f"{name}-0"), every=0.01)
        return time.monotonic() - started

    def _count(self, condition: str) -> int:
        studies = [found for team in self.teams for found in self.api.list("hpstudies", team.namespace)]
        return sum(
            any(c["type"] == condition and c["status"] == "True" for c in found.get("status", {}).get("conditions", []))
            for found in studies
        )

    def _sum(self, verbs: frozenset[str]) -> float:
        found = _REQUESTS.findall(self.api.metrics())
        return sum(float(number) for _, verb, number in found if verb in verbs)

    def _transactions(self) -> float:
        return float(self.database.sql("select sum(xact_commit + xact_rollback) from pg_stat_database"))


def until(look: Callable[[], Any], every: float = 0.5) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError("the operator does not do what is measured")
        time.sleep(every)


@contextmanager
def opened(team: Team, name: str) -> Iterator[optuna.Study]:
    """A study as a worker opens it."""
    with team.trials(name) as trials:
        yield trials


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=50, help="of each latency")
    parser.add_argument("--name", default="scale", help="of the file of results")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"studies": options.studies}
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def tell(what: str, value: Any) -> None:
        results[what] = value
        if isinstance(value, list):
            ordered = sorted(value)
            value = {"p50": statistics.median(ordered), "p99": ordered[int(0.99 * (len(ordered) - 1) + 0.5)]}
        shown = {k: round(v, 3) for k, v in value.items()} if isinstance(value, dict) else round(value, 1)
        print(f"{what}: {shown}", flush=True)

    with tempfile.TemporaryDirectory() as folder, installed_server() as server, postgres() as database:
        api = Api(server)
        operator = Operator(server.kubeconfig_of(SYSTEM, "hpstudy"), database.url(), Path(folder) / "log")
        bench = Bench(api, operator, database)
        for team in bench.teams:
            api.create_namespace(team.namespace)
        operator.start()
        try:
            measure(bench, options.studies, options.samples, tell)
        finally:
            operator.stop()
    save(options.name, results)


def measure(bench: Bench, studies: int, samples: int, tell: Callable[[str, Any], None]) -> None:
    bench.apply()
    time.sleep(5)
    tell("memory, no studies [MiB]", bench.memory())
    tell("apply to Job, idle [s]", bench.job_times(samples))
    started = time.monotonic()
    made = bench.fill(studies)
    tell("all applied, pods ready, status says so [s]", time.monotonic() - started)
    tell("memory, studies running [MiB]", bench.memory())
    tell("a minute at rest, running", bench.at_rest())
    tell("apply to Job, studies present [s]", bench.job_times(samples))
    tell("trial's end to status [s]", bench.follow_times(made, samples))
    team, name = made[0]
    bench.insert_trials(team, name, 0, 15)
    tell("memory, 15 trials in a study [MiB]", bench.memory())
    bench.insert_trials(team, name, 15, 15_000)
    tell("memory, 15,000 trials in a study [MiB]", bench.memory())
    bench.settle()
    tell("a minute at rest, settled", bench.at_rest())
    tell("memory, settled [MiB]", bench.memory())


if __name__ == "__main__":
    main()
