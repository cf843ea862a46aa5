"""crds.py [--check]: write the CRD that the types describe to crds/ and into the chart, or check that it is there."""

import sys
from pathlib import Path

from hpstudy.api.crd import render

ROOT = Path(__file__).parents[1]
TARGETS = [ROOT / folder / "hpstudy.io_hpstudies.yaml" for folder in ("crds", "charts/hpstudy/files")]

text = render()
if "--check" in sys.argv[1:]:
    stale = [str(path.relative_to(ROOT)) for path in TARGETS if not path.exists() or path.read_text() != text]
    if stale:
        sys.exit(f"{' and '.join(stale)} differ from runner/hpstudy/api: run make crds")
else:
    for path in TARGETS:
        path.write_text(text)
