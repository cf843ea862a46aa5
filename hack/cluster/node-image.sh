#!/usr/bin/env bash
# node-image.sh: a kind node image where none can be pulled: Debian, containerd and kubeadm, with every system image
# preloaded. About 2 minutes, once; needs root on a Debian of $SUITE. Prints the image's name.
# shellcheck source-path=SCRIPTDIR source=../common.sh
. "$(dirname "$0")/../common.sh"
[ "$(id -u)" = 0 ] || die "without a container engine that can pull kindest/node, a node image must be built, which needs root"
podman_packages; own_podman
# The name holds a hash of all that goes in: a changed script is another image.
key=$({ echo "$K8S $ETCD $COREDNS $KIND $LOCAL_PATH $SUITE"; cat "$hack/cluster/node-image.sh" "$hack/cluster/archive.py"; } | sha256sum | head -c 12)
name=localhost/hpstudy-kind-node:v$K8S-$key
packages containerd=containerd debootstrap=debootstrap jq=jq gcc=gcc
if podman image exists "$name"; then echo "$name"; exit; fi
exclusively node-image "$@"
"$hack/cluster/binaries.sh" >/dev/null

W=$(mktemp -d /var/tmp/hpstudy-node.XXXXXX); R=$W/rootfs preload="" # not /tmp, which may be in memory
clean() {
  [ -z "$preload" ] || { kill "$preload"; wait "$preload"; } 2>/dev/null || true
  unmount_below "$W"
  rm -rf "$W"
}
trap clean EXIT
log "building the node image (2 minutes; once)"

bootstrap "$R" systemd,systemd-sysv,dbus,containerd,runc,iptables,nftables,iproute2,kmod,socat,conntrack,ethtool,util-linux,mount,ebtables,ipset,containernetworking-plugins,ca-certificates,procps,jq,openssl,hostname,bash,rsync,curl,pigz,tini
lap "node rootfs"
K=$(cd "$W" && printf 'module x\n' > go.mod && go mod download -json "sigs.k8s.io/kind@v$KIND" | jq -r .Dir)
images=$W/images; mkdir "$images"

# --- system images: one static program each, under the names that kubeadm and kind ask for
pack() { # REF ENTRYPOINT: $W/root becomes an image
  tar -C "$W/root" --numeric-owner --owner=0 --group=0 -cf "$W/layer.tar" .
  python3 "$hack/cluster/archive.py" "$images/$(tr '/:' '__' <<< "$1").tar" "$1" "$W/layer.tar" \
    "{\"Entrypoint\": $2, \"Env\": [\"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]}"
  rm -rf "$W/root" "$W/layer.tar"
}
single() { # REF PROGRAM DESTINATION ENTRYPOINT
  mkdir -p "$W/root/tmp" "$W/root/etc/ssl/certs" "$W/root$(dirname "$3")"; chmod 1777 "$W/root/tmp"
  cp "$2" "$W/root$3"; cp "$R/etc/ssl/certs/ca-certificates.crt" "$W/root/etc/ssl/certs/"
  printf 'root:x:0:0::/root:/\nnobody:x:65534:65534::/:/\n' > "$W/root/etc/passwd"
  pack "$1" "$4"
}
merged() { # an empty root with Debian's merged /usr
  local d; mkdir -p "$W/root"/{tmp,etc,run,usr/{bin,sbin,lib,lib64,local/bin}}
  for d in bin sbin lib lib64; do ln -sfn usr/$d "$W/root/$d"; done
}
with_libraries() { # FILE...: each with the shared libraries it needs, from the node's own rootfs
  local f l
  for f; do
    for l in "$f" $(chroot "$R" ldd "$f" | grep -o '/[^ ]*' | sort -u); do
      mkdir -p "$W/root$(dirname "$l")"; [ -e "$W/root$l" ] || cp -L "$R$l" "$W/root$l"
    done
  done
}
cat > "$W/pause.c" <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void down(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, down); signal(SIGINT, down); signal(SIGCHLD, reap); for (;;) pause(); }
C
gcc -O2 -static -s -o "$W/pause" "$W/pause.c"
for ref in $(kubeadm config images list --kubernetes-version "v$K8S"); do
  case $ref in
    */kube-proxy:*) # the xtables modules are loaded by name: without them kube-proxy is Ready and routes nothing
      merged; cp "$BIN/kube-proxy" "$W/root/usr/local/bin/"
      with_libraries /usr/sbin/nft /usr/sbin/xtables-nft-multi /usr/sbin/conntrack /usr/sbin/ipset /usr/bin/mount
      for p in "" 6; do for s in "" -save -restore; do ln -sf xtables-nft-multi "$W/root/usr/sbin/ip${p}tables$s"; done; done
      # shellcheck disable=SC2046  # file names without spaces
      with_libraries $(cd "$R" && find usr/lib/*/xtables -name '*.so' -printf '/%p ')
      pack "$ref" '[]' ;;
    */etcd:*) single "$ref" "$BIN/etcd" /usr/local/bin/etcd '[]' ;;
    */coredns:*) single "$ref" "$BIN/coredns" /coredns '["/coredns"]' ;;
    */pause:*) # 3.10 too, which kind's containerd settings name
      for t in "$ref" "${ref%:*}:3.10"; do single "$t" "$W/pause" /pause '["/pause"]'; done ;;
    *) n=$(basename "${ref%:*}"); single "$ref" "$BIN/$n" "/usr/local/bin/$n" "[\"/usr/local/bin/$n\"]" ;;
  esac
done
storage=$K/pkg/build/nodeimage/const_storage.go
provisioner=docker.io/$(grep -oE 'kindest/local-path-provisioner:[^"]+' "$storage" | head -1)
helper=docker.io/$(grep -oE 'kindest/local-path-helper:[^"]+' "$storage" | head -1)
single "$provisioner" "$BIN/local-path-provisioner" /usr/local/bin/local-path-provisioner '["/usr/local/bin/local-path-provisioner"]'
merged; with_libraries /usr/bin/dash /usr/bin/mkdir /usr/bin/rm /usr/bin/chmod /usr/bin/sleep; ln -s dash "$W/root/usr/bin/sh"; pack "$helper" '[]'
lap "system images"

# --- the node, as kind's own base image lays it out
cp -r --no-preserve=mode "$K/images/base/files/kind" "$K/images/base/files/etc" "$R/"
install -m755 "$K/images/base/files/usr/local/bin/entrypoint" "$R/usr/local/bin/"; chmod 755 "$R/kind" "$R/kind/bin" "$R"/kind/bin/*
for b in containerd ctr containerd-shim-runc-v2; do ln -sf /usr/bin/$b "$R/usr/local/bin/$b"; done
ln -sf /usr/sbin/runc "$R/usr/local/sbin/runc"
mkdir -p "$R/opt/cni" "$R/etc/kubernetes/manifests" "$R/etc/cni/net.d" "$R/kind/manifests"; ln -sfn /usr/lib/cni "$R/opt/cni/bin"
for b in kubelet kubeadm kubectl; do install -m755 "$BIN/$b" "$R/usr/bin/$b"; done
printf 'v%s' "$K8S" > "$R/kind/version"
# No unit of Debian's that would look after hardware; a node is a container.
rm -rf "$R"/etc/systemd/system/*.wants "$R"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$R"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
rm -f "$R/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service"
echo ReadKMsg=no >> "$R/etc/systemd/journald.conf"
systemctl --root="$R" enable kubelet.service containerd.service undo-mount-hacks.service 2>/dev/null
systemctl --root="$R" mask systemd-binfmt.service 2>/dev/null
ln -sf /usr/lib/systemd/systemd "$R/sbin/init"
chroot "$R" ctr oci spec | jq '.hooks.createContainer |= (. // []) + [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' > "$R/etc/containerd/cri-base.json"
# Pod network: the ptp plugin, rendered by containerd from the node's podCIDR; routes.sh adds the routes between nodes.
# It accepts NetworkPolicies and enforces none.
cat > "$R/kind/cni.conflist.tmpl" <<'T'
{"cniVersion":"0.3.1","name":"hpstudy","plugins":[{"type":"ptp","mtu":1500,"ipMasq":true,"ipam":{"type":"host-local","ranges":[{{range $i, $r := .PodCIDRRanges}}{{if $i}},{{end}}[{"subnet":"{{$r}}"}]{{end}}],"routes":[{{range $i, $r := .Routes}}{{if $i}},{{end}}{"dst":"{{$r}}"}{{end}}]}},{"type":"portmap","capabilities":{"portMappings":true}}]}
T
cat >> "$R/etc/containerd/config.toml" <<'T'

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
  conf_template = "/kind/cni.conflist.tmpl"
T
# kind insists on applying a network of its own.
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: pod-network, namespace: kube-system}\ndata: {plugin: ptp}\n' > "$R/kind/manifests/default-cni.yaml"
# shellcheck disable=SC2016
sed -n '/^const defaultStorageManifest = `/,$p' "$storage" |
  sed -e '1d' -e '$d' -e 's#` + storageProvisionerImage + `#'"$provisioner#" -e 's#` + storageHelperImage + `#'"$helper#" > "$R/kind/manifests/default-storage.yaml"
rm -rf "$R/var/lib/containerd"

# --- preload the system images into the node's own containerd store
cat > "$W/containerd.toml" <<T
version = 2
root = "$R/var/lib/containerd"
state = "$W/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$W/c.sock"
T
containerd --config "$W/containerd.toml" > "$W/log" 2>&1 & preload=$!
for _ in $(seq 50); do ctr -a "$W/c.sock" version >/dev/null 2>&1 && break; sleep 0.2; done
for f in "$images"/*.tar; do
  ctr -a "$W/c.sock" -n k8s.io images import --snapshotter overlayfs "$f" >/dev/null || { tail -20 "$W/log" >&2; die "could not preload $f"; }
done
kill "$preload"; wait "$preload" || true; preload=""
rm -rf "$R/var/lib/containerd/opt" "$images"
tar -C "$R" --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf - . |
  podman import -q -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' -c 'STOPSIGNAL SIGRTMIN+3' \
    -c 'ENV container=docker' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$name" >/dev/null
lap "node image"
echo "$name"
