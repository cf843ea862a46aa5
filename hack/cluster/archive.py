"""archive.py OUT.tar REF LAYER.tar CONFIG.json: a docker archive of one layer, without a container engine."""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

# A fixed date: the same content is the same image.
out, ref, layer, config = sys.argv[1:]
digest = hashlib.sha256()
with Path(layer).open("rb") as f:
    while chunk := f.read(1 << 20):
        digest.update(chunk)
image = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": json.loads(config),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    }
).encode()
name = hashlib.sha256(image).hexdigest() + ".json"
manifest = json.dumps([{"Config": name, "RepoTags": [ref], "Layers": ["layer.tar"]}]).encode()
with tarfile.open(out, "w") as archive:
    for member, data in ((name, image), ("manifest.json", manifest)):
        info = tarfile.TarInfo(member)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    archive.add(layer, arcname="layer.tar")
