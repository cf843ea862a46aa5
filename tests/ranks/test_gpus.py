"""GPUs are counted without spoiling the forks that are to open them. No GPU is used: see tests/support/cuda.py."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.exits import EXIT_INVALID
from hpstudy.storage import attributes
from tests.ranks.groups import Group, group
from tests.support.cuda import VARIABLE

SLICE = {"CUDA_VISIBLE_DEVICES": "MIG-5c1e"}
"""Of which torch says only after asking CUDA itself."""


@contextmanager
def gpus(folder: Path, count: int, environment: dict[str, str] | None = None, **fields: Any) -> Iterator[Group]:
    """A group whose pods believe that they have so many."""
    fields = {"function": "looks", "module": "trials_of_gpus", "budget": {"maxTrials": 2}} | fields
    with group(folder, environment={VARIABLE: str(count), **(environment or {})}, **fields) as made:
        yield made


def metrics(made: Group) -> list[dict[str, float]]:
    return [trial.user_attrs[attributes.METRICS] for trial in made.trials()]


def refusal(folder: Path) -> dict[str, str]:
    return json.loads((folder / "refusal-0").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize("on_import", ["", "asks"])
def test_a_parent_that_counts_the_gpus_leaves_them_to_its_ranks(tmp_path: Path, on_import: str, isolation: str) -> None:
    environment = {**SLICE, "TEST_ON_IMPORT": on_import}
    with gpus(tmp_path, 1, environment, workers={"isolation": isolation, "processesPerNode": "auto"}) as made:
        assert made.join() == [0]
        assert [(found["spoilt"], found["seen"]) for found in metrics(made)] == [(0, 1), (0, 1)]


def test_a_module_that_opens_cuda_on_import_is_refused_with_what_to_change(tmp_path: Path) -> None:
    with gpus(tmp_path, 1, {"TEST_ON_IMPORT": "opens"}) as made:
        assert made.join() == [EXIT_INVALID]
        assert made.states() == []
    told = refusal(tmp_path)
    assert told["reason"] == "CudaOpened"
    assert told["message"].startswith("what is imported for trial.function trials_of_gpus:looks opened CUDA.")
    assert "use trial.device inside the function" in told["message"]


@pytest.mark.parametrize("hidden", [{"CUDA_VISIBLE_DEVICES": ""}, {VARIABLE: "0"}], ids=["hidden", "none"])
def test_where_no_gpu_is_to_be_used_nothing_is_refused(tmp_path: Path, hidden: dict[str, str]) -> None:
    with gpus(tmp_path, 1, {"TEST_ON_IMPORT": "opens", **hidden}, processes=2) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE"] * 2


def test_more_ranks_than_gpus_are_refused_with_both_numbers(tmp_path: Path) -> None:
    with gpus(tmp_path, 2, processes=3) as made:
        assert made.join() == [EXIT_INVALID]
    told = refusal(tmp_path)
    assert told["reason"] == "InvalidSpec"
    assert told["message"].startswith("workers.processesPerNode: 3 ranks need a GPU each, and torch sees 2 GPUs here;")
    assert "CUDA_VISIBLE_DEVICES" in told["message"]


def test_a_module_chooses_among_the_gpus_when_it_is_imported(tmp_path: Path) -> None:
    """And then there is one rank, not one for each GPU that was there before."""
    shape = {"processesPerNode": "auto"}
    with gpus(tmp_path, 4, {"TEST_ON_IMPORT": "chooses"}, workers=shape) as made:
        assert made.join() == [0]
        assert [found["seen"] for found in metrics(made)] == [1, 1]
        assert [found["ranks"] for found in metrics(made)] == [1, 1]


def test_trials_side_by_side_see_the_gpus_of_their_slots_alone(tmp_path: Path) -> None:
    workers, budget = {"trialsPerPod": 2}, {"maxTrials": 6}
    with gpus(tmp_path, 2, workers=workers, budget=budget) as made:
        assert made.join() == [0]
        assert {found["seen"] for found in metrics(made)} == {1}
        assert {found["first"] for found in metrics(made)} == {0, 1}
        assert {found["spoilt"] for found in metrics(made)} == {0}
