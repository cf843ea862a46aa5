# shellcheck shell=bash
# Sourced by the scripts below: settings, and the few functions they share.
set -euo pipefail
hack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # used by the scripts that source this file
root=$(dirname "$hack")
# shellcheck source-path=SCRIPTDIR source=versions.env
. "$hack/versions.env"

# One folder a Kubernetes version: programs, container storage, kubeconfigs, image exports. Deleting it costs a rebuild and nothing else.
CACHE=${HPSTUDY_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hpstudy/kind-$K8S}
BIN=$CACHE/bin
CLUSTER=${HPSTUDY_CLUSTER:-hpstudy}
# shellcheck disable=SC2034
PYTHON_IMAGE=docker.io/library/python:3.11-slim-$SUITE POSTGRES_IMAGE=docker.io/library/postgres:$POSTGRES-$SUITE
mkdir -p "$BIN" "$CACHE/locks"
export PATH=$BIN:$PATH

# Standard output is for answers (a path, a name), so that a caller can read it; everything else goes here.
log() { printf '%s\n' "$*" >&2; }
die() { log "error: $*"; exit 1; }
lap() { log "$1: $((SECONDS - ${LAP:-0})) s"; LAP=$SECONDS; }

# exclusively LOCK ARGS...: go on only while no other process holds LOCK, by running this script once more under flock.
# flock -o keeps the lock out of the children: a container's monitor would hold it for as long as the container lives.
exclusively() {
  local lock=$CACHE/locks/$1; shift
  case :${HPSTUDY_LOCKS:-}: in *:"$lock":*) return 0 ;; esac # held by our caller
  command -v flock >/dev/null || return 0                     # not on macOS; there a person runs one at a time
  flock -n "$lock" true || log "waiting for $lock"
  HPSTUDY_LOCKS=${HPSTUDY_LOCKS:-}:$lock exec flock -o "$lock" "$BASH" "$0" "$@"
}

# packages PROGRAM=PACKAGE...: what is missing comes from Debian where we may install it, and is named where we may not.
packages() {
  local want missing=()
  for want; do PATH=$PATH:/usr/sbin:/sbin command -v "${want%%=*}" >/dev/null || missing+=("${want#*=}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then die "please install: ${missing[*]}"; fi
  log "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt-get update -q >/dev/null
  # A list that is too old names versions that are gone: then once more with a new one.
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get update -q >/dev/null; apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; }
}

# podman_packages: podman with the network stack that kind's nodes find one another by, and what that calls; Debian only
# recommends it.
podman_packages() { packages podman=podman runc=runc iptables=iptables /usr/lib/podman/netavark=netavark /usr/lib/podman/aardvark-dns=aardvark-dns; }

# own_podman: podman and kind with a container storage and settings of this project's, which touch nothing that a person has.
own_podman() {
  local settings=$CACHE/containers
  mkdir -p "$settings"
  export KIND_EXPERIMENTAL_PROVIDER=podman CONTAINERS_STORAGE_CONF=$settings/storage.conf CONTAINERS_CONF=$settings/containers.conf
  keep "$CONTAINERS_STORAGE_CONF" <<S
[storage]
driver = "overlay"
graphroot = "$settings/storage"
runroot = "/run/hpstudy-containers"
S
  # nofile, nproc: podman's own defaults may exceed the hard limit. runc: crun refuses a hybrid cgroup tree.
  keep "$CONTAINERS_CONF" <<S
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
S
}

# keep FILE: standard input becomes FILE in one step, and only if it says something else; a reader never sees half of it.
keep() {
  local new; new=$(mktemp "$1.XXXXXX"); cat > "$new"
  if cmp -s "$new" "$1"; then rm "$new"; else mv "$new" "$1"; fi
}

# route: how clusters come to be on this machine. "docker" or "podman": that engine runs and reaches the published images.
# "built": neither does, so node and base images are built from Go modules and Debian packages. The answer is kept beside
# the cluster, because an engine that starts later must not make us lose sight of a cluster that runs.
route() {
  local engine kept=$CACHE/$CLUSTER.route
  if [ ! -f "$kept" ]; then
    printf '%s\n' "${HPSTUDY_CLUSTER_ROUTE:-$(
      for engine in docker podman; do
        if command -v $engine >/dev/null && timeout 10 $engine info >/dev/null 2>&1 &&
          { $engine image inspect "$PUBLISHED_NODE" >/dev/null 2>&1 || timeout 30 $engine manifest inspect "$PUBLISHED_NODE" >/dev/null 2>&1; }
        then echo $engine; exit; fi
      done
      echo built
    )}" | keep "$kept"
  fi
  cat "$kept"
}
PUBLISHED_NODE=docker.io/kindest/node:v$K8S

# engine: sets ROUTE and ENGINE for this cluster's route.
# shellcheck disable=SC2034
engine() {
  ROUTE=$(route) ENGINE=podman
  case $ROUTE in
    built) podman_packages; own_podman ;;
    docker | podman) ENGINE=$ROUTE; export KIND_EXPERIMENTAL_PROVIDER=$ROUTE ;;
    *) die "HPSTUDY_CLUSTER_ROUTE is docker, podman or built, not $ROUTE" ;;
  esac
}

# bootstrap DIRECTORY PACKAGE,...: a minimal Debian, from where this machine gets its own packages.
bootstrap() {
  local mirror
  mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
  [ -n "$mirror" ] || mirror=$(awk '/^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' /etc/apt/sources.list)
  mkdir -p "$CACHE/debs"
  debootstrap --cache-dir="$CACHE/debs" --variant=minbase --include="$2" "$SUITE" "$1" "$mirror" > "$1.log" 2>&1 ||
    { tail -20 "$1.log" >&2; die "debootstrap failed"; }
  rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
}

# unmount_below DIRECTORY: removing it through a mount that was left in it would reach into the machine.
unmount_below() {
  awk -v w="$1/" 'index($2, w) == 1 {print $2}' /proc/mounts | sort -r | while read -r m; do umount "$m" || umount -l "$m"; done
}
