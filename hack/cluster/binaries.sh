#!/usr/bin/env bash
# binaries.sh [PROGRAM...]: builds Kubernetes programs from Go modules into the cache; without names, all of them.
# About 15 minutes on two cores for all, once; 0.3 s when nothing is missing. Prints the folder they are in.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
kubernetes=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl)

# source_of PROGRAM: its module, version and package
source_of() {
  case $1 in
    etcd) echo "go.etcd.io/etcd/server/v3 v$ETCD go.etcd.io/etcd/server/v3" ;;
    kind) echo "sigs.k8s.io/kind v$KIND sigs.k8s.io/kind" ;;
    coredns) echo "github.com/coredns/coredns v$COREDNS github.com/coredns/coredns" ;;
    helm) echo "helm.sh/helm/v3 v$HELM helm.sh/helm/v3/cmd/helm" ;;
    local-path-provisioner) echo "github.com/rancher/local-path-provisioner v$LOCAL_PATH github.com/rancher/local-path-provisioner" ;;
    *) case " ${kubernetes[*]} " in
      *" $1 "*) echo "k8s.io/kubernetes v$K8S k8s.io/kubernetes/cmd/$1" ;;
      *) die "no such program: $1" ;;
    esac ;;
  esac
}

# stale PROGRAM: is it missing, or of another version? Go writes the module's version into each program.
stale() {
  local module version package
  read -r module version package <<< "$(source_of "$1")"
  [ -n "$package" ] || exit 1
  [ -x "$BIN/$1" ] || return 0
  [ "$module" != k8s.io/kubernetes ] || return 1 # the folder itself is named by that version
  ! go version -m "$BIN/$1" | grep -qE "^\s(dep|mod)\s+$module\s+$version\s"
}

check_go() {
  command -v go >/dev/null || die "no Go found: please install Go $GO or newer"
  local have; have=$(go env GOVERSION); have=${have#go}
  [ "$(printf '%s\n' "$GO" "$have" | sort -V | head -1)" = "$GO" ] || die "Go $have is too old: please install Go $GO or newer"
}

# compile GO.MOD-LINES PROGRAM...: programs of one module, in one go, since most of the work is shared. Nothing
# reaches the cache before it is complete.
compile() {
  local requires=$1 work module version package p; shift
  work=$(mktemp -d); scratch+=("$work"); mkdir "$work/bin"; cd "$work" || exit
  printf 'module build\ngo %s.0\n%s\n' "$GO" "$requires" > go.mod
  {
    printf '//go:build tools\n\npackage tools\n\nimport (\n'
    for p; do read -r module version package <<< "$(source_of "$p")"; printf '\t_ "%s"\n' "$package"; done
    printf ')\n'
  } > tools.go
  local stamp=k8s.io/component-base/version minor=${K8S#1.}
  {
    go mod tidy
    for p; do
      read -r module version package <<< "$(source_of "$p")"; echo "$package"
    done | xargs go build -ldflags "-s -w -X $stamp.gitVersion=v$K8S -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" -o "$work/bin/"
  } > "$work/log" 2>&1 || { tail -30 "$work/log" >&2; die "could not build $*"; }
  for p; do # a package is named by its folder, v3 or so
    [ -f "$work/bin/$p" ] || mv "$work"/bin/* "$work/bin/$p"
    mv "$work/bin/$p" "$BIN/$p.new"; mv "$BIN/$p.new" "$BIN/$p"
  done
  cd /; lap "built $*"
}

# Kubernetes' own go.mod points at folders beside it; published, these are modules k8s.io/NAME v0.MINOR.PATCH.
kubernetes_requires() {
  local file work; work=$(mktemp -d)
  file=$(cd "$work" && printf 'module x\n' > go.mod && go mod download -json "k8s.io/kubernetes@v$K8S" | sed -n 's/^\s*"GoMod": "\(.*\)",\{0,1\}$/\1/p')
  rm -rf "$work"
  printf 'require k8s.io/kubernetes v%s\nreplace (\n' "$K8S"
  sed -n '/^replace (/,/^)/p' "$file" | awk -v v="v0.${K8S#1.}" '/=>/ {print "\t" $1 " => " $1 " " v}'
  printf ')\n'
}

[ $# -gt 0 ] || set -- "${kubernetes[@]}" etcd kind coredns helm local-path-provisioner
check_go
missing=(); for p; do if stale "$p"; then missing+=("$p"); fi; done
if [ ${#missing[@]} -gt 0 ]; then
  exclusively build "$@"
  scratch=(); trap 'rm -rf "${scratch[@]}"' EXIT
  export CGO_ENABLED=0 GOFLAGS=-mod=mod
  log "building ${missing[*]} (minutes; once)"
  together=()
  for p in "${missing[@]}"; do case " ${kubernetes[*]} " in *" $p "*) together+=("$p") ;; esac; done
  [ ${#together[@]} = 0 ] || compile "$(kubernetes_requires)" "${together[@]}"
  for p in "${missing[@]}"; do
    case " ${kubernetes[*]} " in *" $p "*) continue ;; esac
    read -r module version _ <<< "$(source_of "$p")"
    compile "require $module $version" "$p"
  done
fi
echo "$BIN"
