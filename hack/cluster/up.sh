#!/usr/bin/env bash
# up.sh [WORKERS]: the cluster of the tests, one control plane and WORKERS nodes (2); prints its kubeconfig's path.
#
# The first of these that works:
#   1. HPSTUDY_TEST_KUBECONFIG: a cluster that somebody names
#   2. kind with Docker or podman and the published node image
#   3. kind with podman and a node image built on the spot, where no image can be pulled (Debian, root, Go)
# A healthy cluster of an earlier call is used again, in a second. About 45 s for a new one once the image is there.
# HPSTUDY_CLUSTER names it (hpstudy), HPSTUDY_CLUSTER_ROUTE (docker, podman, built) chooses between 2 and 3.
if [ -n "${HPSTUDY_TEST_KUBECONFIG:-}" ]; then echo "$HPSTUDY_TEST_KUBECONFIG"; exit; fi
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
exclusively "cluster-$CLUSTER" "$@"
export KUBECONFIG=$CACHE/$CLUSTER.kubeconfig
smoked=$CACHE/$CLUSTER.smoked # the identity of a cluster whose Services were seen to work

# nodes: how many are Ready and how many there are; fails when the API server does not answer
nodes() {
  kubectl --request-timeout=5s get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null |
    awk '{n += $1 == "True"} END {print n + 0, NR}'
}
identity() { kubectl get namespace kube-system -o jsonpath='{.metadata.uid}'; }
smoke() { [ "$(cat "$smoked" 2>/dev/null)" = "$(identity)" ] && routed || { "$hack/cluster/smoke.sh" && identity | keep "$smoked"; }; }
# routed: every node still reaches the API by its Service. kube-proxy's nftables maps were once found empty, after two
# busy hours, on nodes that were Ready and with nothing in any log.
routed() {
  engine
  local api node
  api=$(kubectl get service kubernetes -o jsonpath='{.spec.clusterIP}')
  for node in $(kubectl get nodes -o jsonpath='{.items[*].metadata.name}'); do
    "$ENGINE" exec "$node" curl -sk --max-time 3 -o /dev/null "https://$api/version" </dev/null || return 1
  done
}

if [ -f "$KUBECONFIG" ] && command -v kubectl >/dev/null && counts=$(nodes); then
  read -r ready all <<< "$counts"
  if [ "$all" -gt 0 ] && [ "$ready" = "$all" ] && smoke; then
    [ $# = 0 ] || [ "$all" -ge $(($1 + 1)) ] ||
      die "cluster $CLUSTER has $((all - 1)) workers, not $1: remove it first (hack/cluster/down.sh), or choose another HPSTUDY_CLUSTER"
    echo "$KUBECONFIG"; exit
  fi
  log "cluster $CLUSTER is not healthy ($ready of $all nodes Ready): making it anew"
fi

workers=${1:-2}
engine
missing=(); for p in kind kubectl; do command -v $p >/dev/null || missing+=("$p"); done
packages jq=jq
if [ "$ROUTE" = built ]; then
  image=$("$hack/cluster/node-image.sh")
  mkdir -p /lib/modules # kind mounts it into the nodes
else
  [ ${#missing[@]} = 0 ] || "$hack/cluster/binaries.sh" "${missing[@]}" >/dev/null
  image=$PUBLISHED_NODE
fi
log "creating cluster $CLUSTER with $workers workers ($ROUTE)"
kind delete cluster -q --name "$CLUSTER" 2>/dev/null || true
failed() { tail -30 "$CACHE/$CLUSTER.log" >&2; [ -n "${HPSTUDY_KEEP_FAILED:-}" ] || kind delete cluster -q --name "$CLUSTER" >/dev/null 2>&1; }
trap failed EXIT
{
  printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: %s\n' "$CLUSTER"
  if [ "$ROUTE" = built ]; then
    # restrict_oom_score_adj: where CAP_SYS_RESOURCE is missing, runc cannot lower the score and no sandbox starts.
    cat <<'Y'
networking: {podSubnet: 10.150.0.0/16, serviceSubnet: 10.151.0.0/16, kubeProxyMode: nftables}
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = true
Y
  fi
  printf 'nodes:\n- role: control-plane\n'
  for ((i = 0; i < workers; i++)); do echo "- role: worker"; done
} | keep "$CACHE/$CLUSTER.yaml"
kind create cluster --image "$image" --config "$CACHE/$CLUSTER.yaml" --wait 120s > "$CACHE/$CLUSTER.log" 2>&1
"$hack/cluster/routes.sh"
kubectl wait -n kube-system --for=condition=Ready pod --all --timeout=120s > "$CACHE/$CLUSTER.log" 2>&1
kubectl wait --for=condition=Ready node --all --timeout=60s > "$CACHE/$CLUSTER.log" 2>&1
smoke
trap - EXIT
lap "cluster $CLUSTER"
echo "$KUBECONFIG"
