#!/usr/bin/env bash
# What the official image's entry point does, as far as our chart and tests use it: POSTGRES_USER, POSTGRES_PASSWORD,
# POSTGRES_DB, each also as _FILE, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA, /docker-entrypoint-initdb.d.
set -euo pipefail
[ "${1:0:1}" != - ] || set -- postgres "$@"
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"; chown -R postgres "$PGDATA"; chmod 700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

for name in POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB; do
  file=${name}_FILE
  [ -z "${!file:-}" ] || printf -v "$name" %s "$(< "${!file}")"
done
user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}} auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$auth" != trust ]; then
    echo "POSTGRES_PASSWORD is not set, and POSTGRES_HOST_AUTH_METHOD is not trust" >&2; exit 1
  fi
  mkdir -p "$PGDATA"; chmod 700 "$PGDATA" 2>/dev/null || true
  # shellcheck disable=SC2086  # arguments, as the official image splits them
  initdb -D "$PGDATA" --username="$user" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-}") ${POSTGRES_INITDB_ARGS:-}
  echo "host all all all $auth" >> "$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -w start -o "-c listen_addresses='' -p 5432"
  psql() { PGPASSWORD=${POSTGRES_PASSWORD:-} command psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$user" "$@"; }
  [ "$database" = postgres ] || psql -d postgres -v name="$database" <<< 'create database :"name"'
  for f in /docker-entrypoint-initdb.d/*; do
    # shellcheck disable=SC1090
    case $f in
      *.sh) . "$f" ;;
      *.sql) psql -d "$database" -f "$f" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c listen_addresses='*'
