#!/usr/bin/env bash
# demo.sh: from nothing to the results of a study on a cluster. The cluster stays; make cluster-down removes it.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
study=$root/examples/reviews-cluster.yaml
namespace=hpstudy-demo

# A cluster that the KUBECONFIG names must be able to pull the images; our own gets them loaded.
if [ -z "${KUBECONFIG:-}" ]; then
  KUBECONFIG=$("$hack/cluster/up.sh" 2)
  export KUBECONFIG
  "$hack/images/load.sh"
fi
"$hack/cluster/binaries.sh" helm kubectl >/dev/null

say() { printf '\n$ %s\n' "$*"; "$@"; }
cd "$root"
say helm upgrade --install hpstudy charts/hpstudy --namespace hpstudy-system --create-namespace --wait
kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
kubectl label namespace "$namespace" --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
# Once more from the start, also when the demo was run before.
kubectl delete -n "$namespace" -f "$study" --ignore-not-found >/dev/null
say kubectl apply -n "$namespace" -f "${study#"$root"/}"
name=$(kubectl get -f "$study" -n "$namespace" -o jsonpath='{.metadata.name}')
kubectl get hps "$name" -n "$namespace" --watch &
watching=$!
trap 'kill "$watching" 2>/dev/null' EXIT
kubectl wait -n "$namespace" --for=condition=Succeeded "hps/$name" --timeout=20m >/dev/null ||
  { kubectl describe -n "$namespace" "hps/$name"; die "the study did not succeed"; }
kill "$watching"; wait "$watching" 2>/dev/null || true; trap - EXIT
say kubectl get hps -n "$namespace" -o wide
say kubectl get hps "$name" -n "$namespace" -o jsonpath='{range .status.bestTrials[*]}{.number}{"\t"}{.values}{"\t"}{.hyperparameters}{"\n"}{end}'
printf '\nKUBECONFIG=%s\n' "$KUBECONFIG"
