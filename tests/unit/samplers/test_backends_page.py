"""The examples of docs/backends.md and docs/objectives.md."""

import re
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study, read_manifest
from hpstudy.samplers.build import build_pruner, build_sampler, check_algorithms
from hpstudy.space.load import read_space
from tests.support.builders import manifest

PAGE = "".join((Path(__file__).parents[3] / "docs" / name).read_text() for name in ("backends.md", "objectives.md"))
BLOCKS: list[str] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
REFUSED = [block for block in BLOCKS if block.startswith("# refused: ")]
ACCEPTED = [block for block in BLOCKS if block not in REFUSED]


def complete(fragment: str, folder: Path) -> Path:
    """A manifest with the fragment in its spec, as it is written: 1e-6 must be a number on its way, too."""
    filled = manifest()
    rest = {key: value for key, value in filled.pop("spec").items() if key not in yaml.safe_load(fragment)}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(filled) + "spec:\n" + indent(yaml.safe_dump(rest) + fragment, "  "))
    return path


def test_there_are_examples_of_both_kinds() -> None:
    assert len(ACCEPTED) >= 8
    assert len(REFUSED) >= 6
    assert {"ray", "wandb", "sigopt", "optuna"} == set(re.findall(r"^backend: (\w+)", PAGE, re.MULTILINE))


@pytest.mark.parametrize("fragment", ACCEPTED, ids=range(len(ACCEPTED)))
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_an_example_is_a_study_that_can_be_built(fragment: str, tmp_path: Path) -> None:
    study = read_manifest(complete(fragment, tmp_path)).spec
    check_algorithms(study)
    build_sampler(study, read_space(study))
    build_pruner(study)


@pytest.mark.parametrize("fragment", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_is_refused_in_these_words(fragment: str, tmp_path: Path) -> None:
    words = fragment.partition("\n")[0].removeprefix("# refused: ")
    with pytest.raises(InvalidStudyError, match=re.escape(words)):
        check_algorithms(read_manifest(complete(fragment, tmp_path)).spec)


def test_the_fragments_are_read_as_parts_of_a_spec() -> None:
    with pytest.raises(InvalidStudyError, match="unknown field"):
        parse_study(manifest(sampelr={"name": "TPESampler"}))
