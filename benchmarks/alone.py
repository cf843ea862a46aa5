"""python -m benchmarks.alone MANIFEST: one trial that prepares for itself what the trials of a study share.

Prints seconds and MiB as JSON. benchmarks.sharing compares it with trials of a worker group.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

_STARTED = time.monotonic()

import torch  # noqa: E402

torch.set_num_threads(1)

from benchmarks.objectives import private_mib  # noqa: E402
from hpstudy.api.load import read_manifest  # noqa: E402
from hpstudy.training.form import load_form  # noqa: E402
from hpstudy.training.script import ScriptForm  # noqa: E402
from hpstudy.training.trial import Trial  # noqa: E402


def main() -> None:
    manifest = Path(sys.argv[1])
    spec = read_manifest(manifest).spec
    form = load_form(spec, manifest.parent)
    assert not isinstance(form, ScriptForm), "a script runs its trials itself"
    imported = time.monotonic()
    form.prepare()
    prepared = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        form.run(Trial(0, {"learning_rate": 1e-3}, tuple(spec.objectives), Path(folder)))
    ended = time.monotonic()
    seconds = {"imports": imported - _STARTED, "preparation": prepared - imported, "trial": ended - prepared}
    print(json.dumps({"seconds": seconds, "private_mib": private_mib()}))


if __name__ == "__main__":
    main()
