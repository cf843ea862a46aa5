#!/usr/bin/env bash
# down.sh: removes the cluster; what was built for it stays.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
exclusively "cluster-$CLUSTER" "$@"
engine
kind delete cluster -q --name "$CLUSTER"
rm -f "$CACHE/$CLUSTER".{kubeconfig,smoked,route,yaml,log}
