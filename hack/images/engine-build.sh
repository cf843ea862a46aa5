#!/usr/bin/env bash
# engine-build.sh ARGS...: `docker build ARGS...` with what this machine offers, quiet unless it fails.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
engine
log=$(mktemp); scratch=$(mktemp -d); trap 'rm -rf "$log" "$scratch"' EXIT
options=()
if [ "$ROUTE" = built ]; then
  # chroot: no nested container, which some machines refuse. The machine's certificates and index are lent to the
  # build as mounts and stay out of the image.
  options=(--isolation chroot --layers --pull=never)
  bundle=/etc/ssl/certs/ca-certificates.crt
  [ ! -f $bundle ] || options+=(--volume "$bundle:$bundle:ro")
  index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
  if [ -n "$index" ]; then
    printf '[global]\nindex-url = %s\n' "$index" > "$scratch/pip.conf"
    printf 'index-url = "%s"\n' "$index" > "$scratch/uv.toml"
    options+=(--volume "$scratch/pip.conf:/etc/pip.conf:ro" --volume "$scratch/uv.toml:/etc/uv/uv.toml:ro")
  fi
fi
"$ENGINE" build "${options[@]}" "$@" > "$log" 2>&1 || { tail -50 "$log" >&2; die "could not build: $*"; }
