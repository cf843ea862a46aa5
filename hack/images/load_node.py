"""load_node.py NODE LAYOUT [--storage=STORAGE] NAME...: bring images to a kind node that podman runs.

LAYOUT is an OCI image layout with uncompressed layers, as `podman save --format oci-dir --uncompressed` writes it. What
the node has already is not sent, so that an image whose code changed is some 100 KB instead of 2 GB.

STORAGE is podman's container storage. Where the node's own file system is a folder beside it, layers are not even
copied: their files are linked into the node's containerd, as blobs and as snapshots. Nobody ever writes to a layer.
"""

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOBS = "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
#: Bytes of a layer from which on linking is faster than sending it.
_LARGE = 32 << 20


class Node:
    """A node's containerd."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ctr(self, script: str, stdin: bytes = b"") -> str:
        """Run a shell script on the node in which `ctr` is the Kubernetes one; return what it printed."""
        prelude = 'set -e; ctr() { command ctr -n k8s.io "$@"; }; '
        command = ["podman", "exec", "-i", self.name, "sh", "-c", prelude + script]
        return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout.decode()

    def digest(self, image: str) -> str:
        """Return the digest of the image's manifest on the node, or nothing."""
        found = re.search(rf"^{re.escape(image)}\s+\S+\s+(\S+)", self.ctr("ctr images ls"), re.MULTILINE)
        return found[1] if found else ""

    def root(self) -> Path:
        """Return the folder of this machine that holds the node's /var, less the "var"."""
        template = '{{range .Mounts}}{{if eq .Destination "/var"}}{{.Source}}{{end}}{{end}}'
        return Path(subprocess.check_output(["podman", "inspect", "-f", template, self.name], text=True).strip())


class Layout:
    """The images on this side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # An image that was replaced stays in the index, without a name.
        self._manifests: dict[str, dict[str, Any]] = {
            each["annotations"]["org.opencontainers.image.ref.name"]: each
            for each in json.loads((path / "index.json").read_text())["manifests"]
            if "annotations" in each
        }

    def digest(self, image: str) -> str:
        return str(self._manifests[image]["digest"])

    def blob(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "/")

    def layers(self, image: str) -> list[str]:
        """Return the digests of the layers; uncompressed, so that they are what containerd calls diff ids."""
        return [each["digest"] for each in json.loads(self.blob(self.digest(image)).read_text())["layers"]]

    def archive(self, image: str, present: set[str]) -> bytes:
        """Return an archive for `ctr images import`, without the blobs that are present."""
        entry = self._manifests[image]
        entry = {**entry, "annotations": {"io.containerd.image.name": image}}
        config = json.loads(self.blob(entry["digest"]).read_text())["config"]["digest"]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for member, text in (
                ("oci-layout", '{"imageLayoutVersion": "1.0.0"}'),
                ("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]})),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
            for digest in dict.fromkeys([entry["digest"], config, *self.layers(image)]):
                if digest not in present:
                    archive.add(self.blob(digest), arcname=f"blobs/{digest.replace(':', '/')}")
        return out.getvalue()


def chains(layers: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each layer with the name of its snapshot and of the one below, as OCI defines chain ids."""
    below = ""
    for layer in layers:
        chain = "sha256:" + hashlib.sha256(f"{below} {layer}".encode()).hexdigest() if below else layer
        yield layer, chain, below
        below = chain


def link_tree(storage: Path, source: Path, target: Path) -> None:
    """Make a copy of a folder whose files are links to the originals. Paths are relative to the storage.

    podman mounts the folder of its layers onto itself, and no link can lead out of a mount: so both are seen through a
    third mount, in a mount namespace that ends with the command.
    """
    script = 'mount --bind "$1" /mnt && cp -al --no-target-directory "/mnt/$2" "/mnt/$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(storage), str(source), str(target)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.rpartition("\n")[0].rpartition("\n")[2])


def link_layers(node: Node, layout: Layout, storage: Path, layers: list[str]) -> None:
    """Make the layers that the node lacks out of links to this machine's files, up to the last one that is large."""
    known = json.loads((storage / "overlay-layers" / "layers.json").read_text())
    unpacked = {each["diff-digest"]: Path("overlay", each["id"], "diff") for each in known if "diff-digest" in each}
    root = node.root()
    contents, snapshots = node.ctr("ctr content ls -q; echo; ctr snapshots ls").split("\n\n")
    blobs, present = set(contents.split()), {line.split()[0] for line in snapshots.splitlines() if line}
    sizes = {layer: layout.blob(layer).stat().st_size for layer in layers}
    wanted = [each for each in chains(layers) if each[1] not in present]
    while wanted and sizes[wanted[-1][0]] < _LARGE:
        wanted.pop()
    script = ""  # one call of the node for each layer, which also finishes the one before: a call takes 0.2 s
    for layer, chain, below in wanted:
        if layer not in blobs:
            path = Path("/", _BLOBS, layer.removeprefix("sha256:"))
            if not (outside := root / path.relative_to("/var")).exists():
                os.link(layout.blob(layer), outside)
            # containerd finds the file complete, and only takes note of it.
            script += f"ctr content ingest --expected-digest {layer} --expected-size {sizes[layer]} {layer} < {path}\n"
        key = f"linking-{layer}"
        script += f"ctr snapshots rm {key} 2>/dev/null || true; ctr snapshots prepare {key} {below} >/dev/null\n"
        mount = node.ctr(script + f"ctr snapshots mounts /mnt {key}")
        folder = re.search(r"upperdir=([^,\s]+)", mount) or re.search(r"(/var/lib/containerd\S+/fs)\s", mount)
        if folder is None:
            raise OSError(f"no folder in {mount!r}")
        link_tree(storage, unpacked[layer], (root / Path(folder[1]).relative_to("/var")).relative_to(storage))
        script = f"ctr snapshots commit {chain} {key}\n"
    node.ctr(script)


def load(node: Node, layout: Layout, storage: Path | None, image: str) -> None:
    """Bring one image to the node, unless it is there."""
    if node.digest(image) == layout.digest(image):
        return
    if storage is not None:
        try:
            link_layers(node, layout, storage, layout.layers(image))
        except (OSError, KeyError, subprocess.CalledProcessError) as problem:
            print(f"{node.name}: layers are copied, since they could not be linked: {problem!r}", file=sys.stderr)
    present = set(node.ctr("ctr content ls -q").split())
    # The image holds its snapshots then; the marks that ctr put on the linked ones would hold them for ever.
    labels = " ".join(chain for _, chain, _ in chains(layout.layers(image)))
    script = f"for s in {labels}; do ctr snapshots label $s containerd.io/gc.root= >/dev/null 2>&1 || true; done"
    node.ctr(f"ctr images import --snapshotter overlayfs - >/dev/null; {script}", layout.archive(image, present))
    print(f"{image} on {node.name}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("node")
    parser.add_argument("layout", type=Path)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("images", nargs="+")
    arguments = parser.parse_args()
    layout = Layout(arguments.layout)
    for image in arguments.images:
        load(Node(arguments.node), layout, arguments.storage, image)


if __name__ == "__main__":
    main()
