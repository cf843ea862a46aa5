#!/usr/bin/env bash
# build.sh [TARGET...]: the project's images, operator and runner, in the engine's storage. Nothing is done for a target
# whose inputs are what they were. Prints the images' names. A torch wheel in HPSTUDY_WHEELS (../shared/wheels) is
# used instead of the index's torch; TORCH_BACKEND is handed to the build.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
[ $# -gt 0 ] || set -- operator runner
exclusively images "$@"
engine
"$hack/images/base.sh"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/runner/hpstudy/_version.py")
mkdir -p "$CACHE/images"; cd "$root" || exit

wheels=${HPSTUDY_WHEELS:-$root/../shared/wheels}
wheel=$(find "$wheels" -name "torch-*$(uname -m).whl" 2>/dev/null | head -1 || true)
options=(--build-arg TORCH_BACKEND="${TORCH_BACKEND:-}")
if [ -n "$wheel" ]; then
  # Only podman lends folders to a build; Docker's users have TORCH_BACKEND.
  if [ "$ENGINE" = podman ]; then options+=(--volume "$(cd "$wheels" && pwd):/mnt:ro"); else wheel=""; fi
fi

# inputs TARGET: a hash of everything that the image is made of, as .dockerignore lists it
inputs() {
  local paths=() path
  while read -r path; do
    if [ "$path" != examples ] || [ "$1" = runner ]; then paths+=("$path"); fi
  done < <(sed -n 's/^!//p' .dockerignore)
  {
    if [ "$1" = runner ]; then echo "${TORCH_BACKEND:-} ${wheel##*/}"; fi
    "$ENGINE" image inspect -f '{{.Id}}' "$PYTHON_IMAGE"
    find Dockerfile .dockerignore "${paths[@]}" -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | head -c 64
}

for target; do
  name=ghcr.io/hpstudy/$target:$version
  key=$(inputs "$target")
  if [ "$(cat "$CACHE/images/$target.inputs" 2>/dev/null)" != "$key" ] || ! "$ENGINE" image inspect "$name" >/dev/null 2>&1; then
    log "building $name"
    "$hack/images/engine-build.sh" --target "$target" -t "$name" "${options[@]}" .
    echo "$key" | keep "$CACHE/images/$target.inputs"
    lap "$name"
  fi
  echo "$name"
done
# What earlier builds left behind, gigabytes after a change of dependencies; the newest is the builder's cache of steps.
[ "$ROUTE" != built ] || podman image prune -f --filter until=6h >/dev/null
