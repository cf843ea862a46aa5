#!/usr/bin/env bash
# base.sh: the base images, python and postgres, in the engine's storage: pulled where that can be, otherwise stand-ins
# from Debian's packages under the very same names, so that the Dockerfile is built unchanged. About 2 minutes, once.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
engine
if [ "$ROUTE" != built ]; then
  for image in "$PYTHON_IMAGE" "$POSTGRES_IMAGE"; do
    "$ENGINE" image inspect "$image" >/dev/null 2>&1 || "$ENGINE" pull -q "$image" >&2
  done
  exit
fi
exclusively base-images "$@"
hash() { sha256sum | head -c 12; }
fresh() { [ "$(podman image inspect -f '{{index .Labels "hpstudy.io/stand-in"}}' "$1" 2>/dev/null)" = "$key" ]; }

key=$({ echo "$SUITE"; cat "$0"; } | hash)
if ! fresh "$PYTHON_IMAGE"; then
  packages debootstrap=debootstrap
  W=$(mktemp -d /var/tmp/hpstudy-base.XXXXXX)
  trap 'unmount_below "$W"; rm -rf "$W"' EXIT
  log "building a stand-in for $PYTHON_IMAGE"
  bootstrap "$W/root" python3,python3-venv,ca-certificates
  ln -sf python3 "$W/root/usr/bin/python"
  rm -rf "$W"/root/usr/share/{doc,man,locale}/*
  tar -C "$W/root" --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf - . |
    podman import -q -c 'CMD ["python3"]' -c "LABEL hpstudy.io/stand-in=$key" - "$PYTHON_IMAGE" >/dev/null
  lap "$PYTHON_IMAGE"
fi
key=$({ echo "$key $POSTGRES"; cat "$hack"/images/postgres/*; } | hash)
if ! fresh "$POSTGRES_IMAGE"; then
  log "building a stand-in for $POSTGRES_IMAGE"
  "$hack/images/engine-build.sh" --build-arg POSTGRES="$POSTGRES" --label hpstudy.io/stand-in="$key" -t "$POSTGRES_IMAGE" "$hack/images/postgres"
  lap "$POSTGRES_IMAGE"
fi
