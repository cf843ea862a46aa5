#!/usr/bin/env bash
# pgbouncer.sh: prints the path of PgBouncer, which comes from Debian where it is missing.
set -euo pipefail
PATH=$PATH:/usr/sbin
if ! command -v pgbouncer; then
  # shellcheck source-path=SCRIPTDIR source=common.sh
  . "$(dirname "$0")/common.sh"
  packages pgbouncer=pgbouncer
  command -v pgbouncer
fi
