#!/usr/bin/env bash
# node.sh stop|start NODE: a node loses its power, or gets it back; start returns when it is Ready.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
engine
export KUBECONFIG=$CACHE/$CLUSTER.kubeconfig
case ${1:-} in
  stop) "$ENGINE" kill "$2" >/dev/null ;;
  start)
    "$ENGINE" start "$2" >/dev/null
    # The old Ready may still stand; the kubelet's first word after the start is what counts.
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    for _ in $(seq 120); do
      read -r ready seen < <(kubectl get node "$2" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}' 2>/dev/null) || true
      if [ "${ready:-}" = True ] && [[ ! ${seen:-} < $since ]]; then "$hack/cluster/routes.sh"; exit; fi
      sleep 0.5
    done
    die "node $2 does not come back" ;;
  *) die "usage: node.sh stop|start NODE" ;;
esac
