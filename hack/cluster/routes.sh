#!/usr/bin/env bash
# routes.sh: the routes between the pod networks of a built node image's nodes. They are lost when a node's container
# restarts; run this again then. Does nothing where kind brought a network of its own.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
engine
[ "$ROUTE" = built ] || exit 0
export KUBECONFIG=$CACHE/$CLUSTER.kubeconfig
networks=$(kubectl get nodes -o json | jq -r '.items[] | [.metadata.name, .spec.podCIDR, (.status.addresses[] | select(.type == "InternalIP").address)] | @tsv')
while read -r node _ _; do
  while read -r other cidr ip; do
    [ "$other" = "$node" ] || echo "ip route replace $cidr via $ip"
  done <<< "$networks" | podman exec -i "$node" sh -e
done <<< "$networks"
