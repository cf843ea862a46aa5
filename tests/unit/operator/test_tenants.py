"""Names of roles and schemas, and what the operator reads from its environment."""

import pytest

from hpstudy_operator.settings import (
    DATABASE_URL,
    HEALTH_PORT,
    RUNNER_IMAGE,
    WORKERS_DATABASE_HOST,
    WORKERS_DATABASE_PORT,
    Settings,
    SettingsError,
)
from hpstudy_operator.tenants import tenant_name


def test_a_namespace_is_a_role_and_schema_of_its_own() -> None:
    assert tenant_name("team-a") == "hpstudy_team-a"


def test_long_namespaces_do_not_meet_in_a_name_that_postgresql_cuts_off() -> None:
    names = {tenant_name("n" * 62 + end) for end in "ab"} | {tenant_name("n" * 55)}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


ENVIRONMENT = {DATABASE_URL: "postgresql://u:secret@db/x", RUNNER_IMAGE: "runner", HEALTH_PORT: "8080"}


@pytest.mark.parametrize("missing", ENVIRONMENT)
def test_an_incomplete_environment_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment({key: value for key, value in ENVIRONMENT.items() if key != missing})


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql://u:secret@db/x?sslmode=verify-full&sslrootcert=/nowhere/ca.crt", "sslrootcert .* is no file"),
        ("mysql://u:secret@db/x", "must be PostgreSQL"),
    ],
)
def test_a_database_that_the_operator_cannot_use_is_told_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=f"{DATABASE_URL}: .*{complaint}") as refusal:
        Settings.from_environment({**ENVIRONMENT, DATABASE_URL: url})
    assert "secret" not in str(refusal.value)


def test_settings_do_not_show_the_password() -> None:
    assert "secret" not in repr(Settings.from_environment(ENVIRONMENT))


def test_workers_may_find_the_database_elsewhere() -> None:
    given = Settings.from_environment({**ENVIRONMENT, WORKERS_DATABASE_HOST: "proxy", WORKERS_DATABASE_PORT: "6432"})
    assert (given.workers_database_host, given.workers_database_port) == ("proxy", 6432)
    with pytest.raises(SettingsError, match=WORKERS_DATABASE_PORT):
        Settings.from_environment({**ENVIRONMENT, WORKERS_DATABASE_PORT: "none"})
