#!/usr/bin/env bash
# postgres.sh: prints the folder of a PostgreSQL's server programs, which comes from Debian where it is missing.
set -euo pipefail
found() { # the newest; Debian keeps the server's programs out of the PATH
  local bin=""
  for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V -r); do [ ! -x "$bin/initdb" ] || { echo "$bin"; return; }; done
  bin=$(command -v initdb) && dirname "$(readlink -f "$bin")"
}
if ! found; then
  # shellcheck source-path=SCRIPTDIR source=common.sh
  . "$(dirname "$0")/common.sh"
  packages initdb=postgresql
  found
fi
