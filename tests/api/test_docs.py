"""The manifests in the documentation are taken by a real API server."""

import json
import re

import pytest
import yaml

from hpstudy.api.workers import SecretKey
from hpstudy_operator.builders import build_worker_job, check_template
from tests.api.harness import Team, study
from tests.support.processes import REPOSITORY

_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)
PAGES = ("operations.md", "placement.md", "security.md")
BLOCKS = [
    pytest.param(block, id=f"{page}-{index}")
    for page in PAGES
    for index, block in enumerate(_BLOCK.findall((REPOSITORY / "docs" / page).read_text()))
    if "alert:" not in block  # Prometheus'
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_manifest_of_the_documentation_can_be_applied(team: Team, block: str) -> None:
    if "workers" in (part := yaml.safe_load(block)):  # of a study: what becomes of it
        resource = study(**part)
        resource["metadata"] |= {"namespace": team.namespace, "uid": "0", "generation": 1}
        check_template(resource)
        block = json.dumps(build_worker_job(resource, 0, image="runner:test", storage=SecretKey(name="storage")))
    team.kubectl("create", "--dry-run=server", "-f", "-", stdin=block)
