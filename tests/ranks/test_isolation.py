"""Trials do not leak into one another, whether each has processes of its own or not."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.ranks.groups import group
from tests.training.forms import task_fields

LENGTH = int(os.environ.get("TEST_TRIALS", "40"))
"""Trials in which memory must stay as it is. TEST_TRIALS=200 takes a minute."""
FLAT_KIB = 3000
"""Noise of the allocator. A leaked trial is 400 KiB."""


def reviews(folder: Path) -> str:
    rows = [f"{'good' if number % 2 else 'bad'} one {number},{number % 2}" for number in range(60)]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return str(folder / "reviews.csv")


@pytest.mark.parametrize("form", ["function", "transformers"])
def test_a_trial_alone_gives_what_it_gave_among_others(tmp_path: Path, form: str) -> None:
    """The form function draws without a seed; dropout and the order of the data draw in the other."""
    fields: dict[str, Any] = {"sampler": {"name": "RandomSampler", "options": {"seed": 3}}, "budget": {"maxTrials": 3}}
    if form == "transformers":
        arguments = {"num_train_epochs": 2, "learning_rate": 1e-2}
        fields |= task_fields("text-classification", {"csv": reviews(tmp_path)}, arguments=arguments)
        low_high = {"type": "float", "low": 0.1, "high": 0.5}
        fields["searchSpace"] = {"parameters": {"model.hidden_dropout_prob": low_high}}

    def run(isolation: str, **more: Any) -> list[Any]:
        folder = tmp_path / f"{isolation}-{len(more)}"
        folder.mkdir()
        workers = {"isolation": isolation}
        with group(folder, "draws", module="trials_of_sessions", workers=workers, **(fields | more)) as made:
            assert made.join() == [0]
            return [(trial.params, trial.value) for trial in made.trials()]

    among = run("process")
    assert len({value for _, value in among}) == 3
    assert run("inline") == among
    last = {"budget": {"maxTrials": 1}, "initialTrials": [among[-1][0]]}
    assert run("process", **last) == run("inline", **last) == among[-1:]


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_memory_is_flat_over_many_trials(tmp_path: Path, isolation: str) -> None:
    fields = {"budget": {"maxTrials": LENGTH}, "sampler": {"name": "RandomSampler"}}
    with group(tmp_path, "grows", module="trials_of_sessions", workers={"isolation": isolation}, **fields) as made:
        assert made.join(400) == [0]
    notes = [list(map(int, line.split())) for line in (tmp_path / "rank-0").read_text().splitlines()]
    assert len(notes) == LENGTH
    assert (len({process for process, _, _ in notes}) == 1) is (isolation == "inline")
    for place in (1, 2):
        early, late = notes[LENGTH // 4][place], notes[-1][place]
        assert late - early < FLAT_KIB, [note[place] for note in notes]
