#!/usr/bin/env bash
# mariadb.sh: prints the path of MariaDB's server program, which comes from Debian where it is missing, with the one of
# the client's package that making a database calls (the server's does not depend on it).
set -euo pipefail
PATH=$PATH:/usr/sbin
if ! { command -v mariadbd && command -v my_print_defaults; } >/dev/null; then
  # shellcheck source-path=SCRIPTDIR source=common.sh
  . "$(dirname "$0")/common.sh"
  packages mariadbd=mariadb-server-core my_print_defaults=mariadb-client-core
fi
command -v mariadbd
