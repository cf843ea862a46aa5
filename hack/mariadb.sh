#!/usr/bin/env bash
# mariadb.sh: prints the path of MariaDB's server program, which comes from Debian where it is missing.
set -euo pipefail
PATH=$PATH:/usr/sbin
if ! command -v mariadbd; then
  # shellcheck source-path=SCRIPTDIR source=common.sh
  . "$(dirname "$0")/common.sh"
  packages mariadbd=mariadb-server-core
  command -v mariadbd
fi
