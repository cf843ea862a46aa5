"""Workers that reach the operator's database through PgBouncer, in the mode that the documentation allows."""

from collections.abc import Iterator
from typing import cast

import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy_operator.kube import Kube
from hpstudy_operator.tenants import Tenants, tenant_name
from tests.storage.sharing import share
from tests.support.builders import spec
from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.postgres import Postgres


@pytest.fixture
def bouncer(database: Postgres) -> Iterator[PgBouncer]:
    with pgbouncer(database) as made:
        yield made


def test_groups_behind_pgbouncer_keep_the_budget_in_their_namespaces_schema(
    database: Postgres, bouncer: PgBouncer
) -> None:
    admin = database.create_database("bounced")
    tenants = Tenants(cast(Kube, None), admin, bouncer.host, bouncer.port)
    url = f"postgresql://{tenant_name('team')}:secret@{bouncer.host}:{bouncer.port}/bounced"
    assert tenants.provision("team", url)
    study = spec(budget={"maxTrials": 23, "maxFailedTrials": 100}, sampler={"name": "RandomSampler"})
    trials = share(url, study, 3, reasons.MAX_TRIALS_REACHED)
    assert sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials) == 23
    where = database.sql("select schemaname from pg_tables where tablename = 'trials'", "bounced")
    assert where == tenant_name("team")
