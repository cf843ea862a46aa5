"""Results as a table and as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def print_table(title: str, rows: Mapping[str, Sequence[float]], unit: str = "s", digits: int = 3) -> None:
    """Print median, minimum and maximum of each row's values."""
    width = max(map(len, rows))
    print(f"\n{title}")
    print(f"  {'':{width}}  {'median':>9} {'min':>9} {'max':>9}  n   [{unit}]")
    for name, values in rows.items():
        numbers = (statistics.median(values), min(values), max(values))
        print(f"  {name:{width}}  " + " ".join(f"{number:9.{digits}f}" for number in numbers) + f"  {len(values)}")


def save(name: str, results: Mapping[str, Any]) -> Path:
    """Write all values of a benchmark, and what they depend on, to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    load = [round(value, 2) for value in os.getloadavg()]
    machine = {"cpus": len(os.sched_getaffinity(0)), "load": load, "python": platform.python_version()}
    written = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, **results}
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False))
    print(f"\n{path.relative_to(RESULTS.parents[1])}; load of the machine at the end: {load[0]}, {load[1]}, {load[2]}")
    return path
