"""The transformers form: its checkpoint is of the evaluation that counts; a trial that was cut off loses nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import BEST
from hpstudy.training.form import Form, load_form
from hpstudy.training.trial import Trial, TrialStopped
from tests.support.builders import spec
from tests.training.forms import TINY_BERT

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and Transformers are not ours to mend

DATASET = {"csv": "reviews.csv", "maxLength": 12}


class CutOffError(Exception):
    """As a kill would, at a report."""


class Recorder:
    """Stands where the driver is."""

    def __init__(self, until: int = 99, prune_at: int = 99, stop_at: int = 999) -> None:
        self.steps: list[int] = []
        self.past: list[int] = []
        self.values: list[float] = []
        self._until = until
        self._prune_at = prune_at
        self._stop_at = stop_at
        self.trained = 0

    def report(self, step: int, metrics: Any, *, past: bool = False) -> bool:
        if step >= self._until:
            raise CutOffError
        (self.past if past else self.steps).append(step)
        self.values.append(metrics["eval_f1"])
        return step >= self._prune_at

    def progress(self, share: float) -> None:
        """Nobody watches."""

    def stopping(self) -> bool:
        """Asked after each step."""
        self.trained += 1
        return self.trained >= self._stop_at


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With 400 rows that a small model learns in a few epochs, and is not done with."""
    torch.set_num_threads(1)
    source = random.Random(0)
    lines = []
    for number in range(400):
        label, weights = ("up", [3, 3, 3, 1, 1, 1]) if number % 2 else ("down", [1, 1, 1, 3, 3, 3])
        lines.append(f"{''.join(source.choices('abcxyz', weights, k=10))},{label}")
    path = tmp_path_factory.mktemp("data")
    (path / "reviews.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def make_form(folder: Path, evaluation: str = "best", **arguments: Any) -> tuple[StudySpec, Form]:
    transformers = {
        "task": "text-classification",
        "model": {"config": TINY_BERT},
        "dataset": DATASET,
        "evaluation": evaluation,
        "arguments": {"num_train_epochs": 4, "learning_rate": 3e-3, "per_device_train_batch_size": 16} | arguments,
    }
    space = {"parameters": {"weight_decay": {"type": "float", "low": 0, "high": 1}}}
    objectives = [{"metric": "eval_f1", "direction": "maximize"}]
    study = spec(objectives=objectives, searchSpace=space, trial={"transformers": transformers}, checkpoints={})
    form = load_form(study, folder)
    form.prepare()
    return study, form


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[StudySpec, Form]:
    return make_form(folder)


class Trials:
    """Trials of one form and store."""

    def __init__(self, made: tuple[StudySpec, Form], output: Path, keep: str = "best") -> None:
        self.study, self.form = made
        self.store = FolderStore(output / "store")
        self.output = output
        self._keep: Any = keep

    def run(self, number: int, recorder: Recorder, continues: int | None = None, **params: float) -> dict[str, Any]:
        trial = Trial(
            number,
            {"weight_decay": 0.1, **params},
            self.study.objectives,
            self.output / "trials" / str(number),
            recorder,
            continues=continues,
            open_store=lambda: self.store,
            keep=self._keep,
        )
        trial.begin()
        return dict(self.form.run(trial))


@pytest.fixture
def trials(made: tuple[StudySpec, Form], tmp_path: Path) -> Trials:
    return Trials(made, tmp_path)


def evaluate(checkpoint: str, form: Any) -> float:
    """As somebody else would who is given the path."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = form._data.validation
    with torch.no_grad():
        inputs = tokenizer.pad({"input_ids": list(rows["input_ids"])}, return_tensors="pt")
        predicted = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.argmax(-1)
    assert set(model.config.id2label.values()) == {"up", "down"}
    return float(f1_score(rows["labels"], predicted, average="macro"))


@pytest.mark.parametrize("evaluation", ["best", "last"])
def test_the_best_checkpoint_is_that_of_the_evaluation_that_counts(
    folder: Path, tmp_path: Path, evaluation: str
) -> None:
    trials, recorder = Trials(make_form(folder, evaluation), tmp_path), Recorder()
    metrics = trials.run(0, recorder)
    reached = max(recorder.values) if evaluation == "best" else recorder.values[-1]
    assert recorder.values[-1] != max(recorder.values), "or the test shows nothing"
    assert metrics["eval_f1"] == reached
    best = trials.store.location(0, BEST)
    assert best is not None
    assert evaluate(best, trials.form) == pytest.approx(metrics["eval_f1"], abs=1e-6)
    assert not list(Path(best).glob("*optimizer*"))
    assert len(list((tmp_path / "trials" / "0").glob("checkpoint-*"))) == 1, "the node's disk holds the last alone"


def test_a_trial_that_was_cut_off_ends_as_if_it_had_not_been(trials: Trials) -> None:
    whole = Recorder()
    expected = trials.run(0, whole)
    for cut_off in (1, 3, 4):
        first, second = Recorder(until=cut_off), Recorder()
        with pytest.raises(CutOffError):
            trials.run(10 * cut_off, first)
        found = trials.run(10 * cut_off + 1, second, continues=10 * cut_off)
        assert first.steps == list(range(1, cut_off))
        assert second.past == first.steps
        assert second.steps == list(range(cut_off, 5))
        assert second.values == whole.values
        assert found["eval_f1"] == expected["eval_f1"]
        best = trials.store.location(10 * cut_off + 1, BEST)
        assert best is not None
        assert evaluate(best, trials.form) == pytest.approx(expected["eval_f1"], abs=1e-6)


@pytest.mark.parametrize("strategy", ["epoch", "steps", "no"])
def test_a_trial_that_was_told_to_stop_does_no_step_twice(folder: Path, tmp_path: Path, strategy: str) -> None:
    """In the middle of an epoch, at its end, just after an evaluation, and when all steps are done."""
    per_epoch, epochs = 20, 2
    evaluations = {"eval_strategy": strategy} | ({"eval_steps": 15} if strategy == "steps" else {})
    form = make_form(folder, num_train_epochs=epochs, **evaluations)
    trials, whole = Trials(form, tmp_path), Recorder()
    expected = trials.run(0, whole)
    assert whole.trained == per_epoch * epochs
    for stop_at in (1, 15, per_epoch, 33, per_epoch * epochs):
        first, second = Recorder(stop_at=stop_at), Recorder()
        with pytest.raises(TrialStopped):
            trials.run(10 * stop_at, first)
        found = trials.run(10 * stop_at + 1, second, continues=10 * stop_at)
        assert (first.trained, second.trained) == (stop_at, per_epoch * epochs - stop_at)
        assert second.past == first.steps
        assert first.steps + second.steps == whole.steps
        assert second.values == whole.values
        assert {name: found[name] for name in ("eval_f1", "eval_loss")} == {
            name: expected[name] for name in ("eval_f1", "eval_loss")
        }


def test_a_trial_that_goes_on_with_another_learning_rate_learns_by_it(trials: Trials) -> None:
    """As population based training does; with none at all nothing changes any more."""
    first, second = Recorder(until=3), Recorder()
    with pytest.raises(CutOffError):
        trials.run(50, first)
    trials.run(51, second, continues=50, learning_rate=0.0)
    assert len(set(first.values)) == 2
    assert second.values[1:] == [first.values[-1]] * 3
