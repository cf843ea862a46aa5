"""What the chart carries along must not drift."""

from pathlib import Path

_ROOT = Path(__file__).parents[3]
_CRD = "hpstudy.io_hpstudies.yaml"


def test_the_chart_brings_the_generated_crd() -> None:
    ours, charts = _ROOT / "crds" / _CRD, _ROOT / "charts/hpstudy/files" / _CRD
    assert charts.read_bytes() == ours.read_bytes(), f"cp {ours} {charts}"
