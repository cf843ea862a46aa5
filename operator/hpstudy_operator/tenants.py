"""Storage for the studies that bring none: in the operator's database, a role and a schema for each namespace.

The Secret in the namespace is the desired state: it holds the password, and the role is made to match it. So whoever
comes first decides, a deleted Secret means a new password, and a database that was restored or emptied is mended from
the Secrets that exist.
"""

import hashlib
import secrets
import threading
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpstudy.api.study import Metadata
from hpstudy.api.workers import SecretKey
from hpstudy.storage.connecting import connected
from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.opening import open_engine
from hpstudy.storage.removal import remove_study
from hpstudy.storage.urls import parse_url
from hpstudy_operator import names
from hpstudy_operator.kube import FIELD_MANAGER, Kube, Resource, UnavailableError
from hpstudy_operator.names import LABEL_MANAGED_BY

TENANT_SECRET = SecretKey(name="hpstudy-storage", key="url")
"""The Secret that the operator keeps in every namespace with a study."""
_PASSWORD_BYTES = 32
_PREFIX = "hpstudy_"
_MAX_IDENTIFIER = 63  # bytes; PostgreSQL cuts longer ones off without an error
_LOCK = int.from_bytes(b"hpstudy", signed=True)
"""One lock for all tenants: ``revoke`` on the shared schema fails when two sessions do it at once."""


def tenant_name(namespace: str) -> str:
    """Role and schema of a namespace.

    A digest replaces the end of a name that is too long; "_" cannot be in a namespace, so no two meet.
    """
    if len(_PREFIX + namespace) <= _MAX_IDENTIFIER:
        return _PREFIX + namespace
    digest = hashlib.sha256(namespace.encode()).hexdigest()[:12]
    return f"{_PREFIX}{namespace[: _MAX_IDENTIFIER - len(_PREFIX) - len(digest) - 1]}_{digest}"


class Tenants:
    """The operator's database. Safe for many threads and, by locks in the database, for many operators."""

    def __init__(self, kube: Kube, url: str, workers_host: str = "", workers_port: int | None = None) -> None:
        """
        Args:
            url: of the administrator.
            workers_host, workers_port: where the namespaces' roles find the database, if elsewhere.
        """
        self._kube = kube
        self._admin = parse_url(url)
        self._host, self._port = workers_host or self._admin.host, workers_port or self._admin.port
        self._guard = threading.Lock()
        self._writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        """By namespace: one study at a time becomes an owner, or one would take another off the list."""

    def url(self, study: Metadata) -> str | None:
        """The URL for the studies of a namespace, from its Secret, which is made when there is none.

        The study becomes an owner of the Secret, which the garbage collector removes with the last of them. A Secret of
        that name that the operator did not make is used as it is; None when it lacks the key.
        """
        namespace, owners = study.namespace, [names.owner_of(study)] if study.uid else []
        secret = self._kube.get("Secret", namespace, TENANT_SECRET.name)
        if secret is not None and self._wanted(secret, namespace, owners) is None:  # as nearly always
            return secret_value(secret, TENANT_SECRET.key)
        with self._guard:
            writing = self._writing[namespace]
        with writing:
            secret = self._kube.get("Secret", namespace, TENANT_SECRET.name)
            if secret is None:
                self._kube.create(self._secret(namespace, _new_password(), owners))
                # Read again: somebody else may have been faster, and there must be one password.
                secret = self._kube.get("Secret", namespace, TENANT_SECRET.name)
                if secret is None:
                    raise UnavailableError(f"Secret {TENANT_SECRET.name} went away while it was made")
            wanted = self._wanted(secret, namespace, owners)
            if wanted is not None:
                self._kube.apply(wanted)
            return secret_value(wanted or secret, TENANT_SECRET.key)

    def _wanted(self, secret: Resource, namespace: str, owners: list[Resource]) -> Resource | None:
        """What a Secret of the operator's should be; None when it is so: not when the database has moved, the Secret
        was damaged, or an owner is new."""
        if not is_provided(secret):
            return None
        stored = secret_value(secret, TENANT_SECRET.key)
        password = _password(stored) or _new_password()
        known = secret["metadata"].get("ownerReferences", [])
        missing = [owner for owner in owners if owner["uid"] not in {other["uid"] for other in known}]
        if stored == self._url(namespace, password) and not missing:
            return None
        return self._secret(namespace, password, [*known, *missing])

    @property
    def admin_url(self) -> str:
        """Of the operator's database, with the administrator's password."""
        return self._admin.render_as_string(hide_password=False)

    def is_within(self, url: str) -> bool:
        """Whether a URL is of the operator's database, by whichever role."""
        other = make_url(url)  # which was read before: a file that it names may be gone by now
        return (other.host, other.port, other.database) == (self._host, self._port, self._admin.database)

    def provision(self, namespace: str, url: str) -> bool:
        """Make the role and the schema fit the URL of the namespace's Secret; False for a Secret of the user's, for
        which there is nothing to do.

        The name comes from the namespace and never from the Secret, which people of the namespace may edit: with it
        they can set the password of their own role and of no other.

        Raises:
            StorageUnreachableError: the database does not answer, or its administrator may not create roles.
        """
        if url != self._url(namespace, _password(url)):
            return False
        name = tenant_name(namespace)
        with self._administrator() as connection, connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(%s)", (_LOCK,))
            # As a verifier, so that the password itself is in no log of the server's.
            verifier = psycopg2.extensions.encrypt_password(_password(url), name, connection, "scram-sha-256")
            for statement, parameters in _statements(cursor, name, verifier):
                cursor.execute(sql.SQL(statement).format(name=sql.Identifier(name)), parameters)
        return True

    def remove_study(self, namespace: str, name: str) -> None:
        """Remove a study from the schema of a namespace, as the namespace's role: what people have put into their
        schema (a trigger, say) runs in the session, and one that an administrator began can always set its role back.

        With a namespace that is deleted the Secret may be gone: then the role gets another password.

        Args:
            name: of the study in the storage.

        Raises:
            StorageUnreachableError: the database does not answer.
        """
        secret = self._kube.get("Secret", namespace, TENANT_SECRET.name)
        stored = None if secret is None else secret_value(secret, TENANT_SECRET.key)
        password = _password(stored) or _new_password()
        url = self._url(namespace, password)
        with self._administrator() as connection, connection.cursor() as cursor:
            cursor.execute("select 1 from pg_namespace where nspname = %s", (tenant_name(namespace),))
            if cursor.fetchone() is None:
                return
        self.provision(namespace, url)
        engine = open_engine(url)
        try:
            with storage_errors(), engine.begin() as connection:
                if inspect(connection).has_table("studies"):
                    remove_study(connection, name)
        finally:
            engine.dispose()

    def _url(self, namespace: str, password: str) -> str:
        return URL.create(
            "postgresql",
            username=tenant_name(namespace),
            password=password,
            host=self._host,
            port=self._port,
            database=self._admin.database,
            query=self._admin.query,
        ).render_as_string(hide_password=False)

    def _secret(self, namespace: str, password: str, owners: list[Resource]) -> Resource:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": TENANT_SECRET.name,
                "namespace": namespace,
                "labels": {LABEL_MANAGED_BY: FIELD_MANAGER},
                "ownerReferences": owners,
            },
            "data": {TENANT_SECRET.key: b64encode(self._url(namespace, password).encode()).decode()},
        }

    @contextmanager
    def _administrator(self) -> Iterator[Any]:
        try:
            with connected(self._admin, FIELD_MANAGER) as connection:
                yield connection
        except psycopg2.Error as error:
            raise StorageUnreachableError(str(error).strip().partition("\n")[0]) from error


def _statements(cursor: Any, name: str, verifier: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What brings the database to the desired state from whatever state it is in."""
    cursor.execute("select 1 from pg_roles where rolname = %s", (name,))
    if cursor.fetchone() is None:
        yield "create role {name} login", ()
    yield "alter role {name} login password %s", (verifier,)
    yield "alter role {name} set search_path to {name}", ()
    cursor.execute("select 1 from pg_namespace where nspname = %s", (name,))
    if cursor.fetchone() is None:
        # An administrator who is no superuser may give a schema only to a role that it is a member of.
        yield "grant {name} to current_user", ()
        yield "create schema {name} authorization {name}", ()
    # Up to 14 everybody may create tables there. Only its owner can change that, who need not be the administrator.
    cursor.execute(
        "select 1 from pg_namespace where nspname = 'public' and pg_has_role(nspowner, 'usage')"
        " and has_schema_privilege(%s, oid, 'create')",
        (name,),
    )
    if cursor.fetchone():
        yield "revoke create on schema public from public", ()


def is_provided(secret: Resource) -> bool:
    """Whether the operator made the Secret."""
    return bool(secret["metadata"].get("labels", {}).get(LABEL_MANAGED_BY) == FIELD_MANAGER)


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _password(url: str | None) -> str:
    """In a Secret's URL; empty where there is none, but not where a file that the URL names is gone."""
    try:
        return make_url(url or "").password or ""
    except (ArgumentError, ValueError):
        return ""


def secret_value(secret: Resource, key: str) -> str | None:
    """The value of a key of a Secret, or None when the key is missing or holds no text."""
    encoded = (secret.get("data") or {}).get(key)
    if encoded is None:
        return None
    try:
        return b64decode(encoded).decode().strip()
    except ValueError:
        return None
