"""The operator checks studies of every backend, and its image has the engine of none."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
CODE = """
import sys
NONE = set("torch transformers ray hyperopt bayes_opt wandb sweeps sigopt sigoptlite libsigopt scipy sklearn".split())

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NONE:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nowhere())
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import check_algorithms
from tests.support.builders import spec

check_algorithms(spec(backend=sys.argv[1]))
try:
    check_algorithms(spec(backend=sys.argv[1], sampler={"name": "nosuch"}))
except InvalidStudyError as error:
    print(error.reason)
"""


@pytest.mark.parametrize("backend", ["optuna", "ray", "wandb", "sigopt"])
def test_a_study_is_checked_without_its_engine(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, backend], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("UnknownSampler\n", 0), done.stderr
