#!/usr/bin/env bash
# smoke.sh: does a pod on every node find a Service by its name and reach it? Nodes can be Ready without. About 5 s.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
engine
export KUBECONFIG=$CACHE/$CLUSTER.kubeconfig
namespace=hpstudy-smoke-$RANDOM # not the one that an earlier call is still deleting
trap 'kubectl delete namespace "$namespace" --wait=false --ignore-not-found >/dev/null' EXIT
pause=$(kubectl get nodes -o json | jq -r '[.items[].status.images[]?.names[]? | select(test("/pause:"))][0]')
# Only the pods' networks are wanted: nothing but the pause image is on every node.
kubectl apply -f - >/dev/null <<Y
{apiVersion: v1, kind: Namespace, metadata: {name: $namespace}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: smoke, namespace: $namespace}
spec:
  selector: {matchLabels: {app: smoke}}
  template:
    metadata: {labels: {app: smoke}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: pause, image: "$pause", imagePullPolicy: Never}]
Y
kubectl rollout status -n "$namespace" daemonset/smoke --timeout=60s >/dev/null
api=$(kubectl get service kubernetes -o jsonpath='{.spec.clusterIP}')
dns=$(kubectl get service -n kube-system kube-dns -o jsonpath='{.spec.clusterIP}')

# check POD-IP: on a node, in the network of that pod. The DNS query for the
# DNS service's own name is written by hand, since a node has curl and bash only (and no 0x0a: bash would send two packets).
# shellcheck disable=SC2016
check='
for net in /run/netns/*; do
  case " $(nsenter --net="$net" hostname -I) " in *" $1 "*) ;; *) continue ;; esac
  nsenter --net="$net" bash -c '\''
    exec 3<>"/dev/udp/$2/53"
    printf "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08kube-dns\x0bkube-system\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01" >&3
    answer=$(timeout 5 dd bs=512 count=1 status=none <&3 | tail -c 4 | od -An -tu1 | xargs | tr " " .)
    [ "$answer" = "$2" ] || { echo "DNS said \"$answer\", not $2" >&2; exit 1; }
    curl -sk --max-time 5 -o /dev/null "https://$3/version" || { echo "no way to $3" >&2; exit 1; }
  '\'' check "$@"
  exit
done
echo "no network of $1" >&2; exit 1'
pods=$(kubectl get pods -n "$namespace" -o jsonpath='{range .items[*]}{.spec.nodeName} {.status.podIP}{"\n"}{end}')
while read -r node ip; do
  for try in 1 2 3 4 5; do # kube-proxy may be a few seconds behind
    "$ENGINE" exec "$node" bash -c "$check" check "$ip" "$dns" "$api" </dev/null && break
    [ "$try" -lt 5 ] || die "a pod on $node reaches no Service"
    sleep 2
  done
done <<< "$pods"
