"""The transformers form: its checkpoint is of the evaluation that counts; a trial that was cut off loses nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import BEST
from hpstudy.training import trainer
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


WORST = {"save_strategy": "best", "metric_for_best_model": "eval_f1", "greater_is_better": False}
"""What Transformers would save is what the study does not want."""


@pytest.mark.parametrize(
    ("evaluation", "arguments"),
    [("best", {}), ("last", {}), ("best", WORST), ("last", WORST)],
)
def test_the_best_checkpoint_is_that_of_the_evaluation_that_counts(
    folder: Path, tmp_path: Path, evaluation: str, arguments: dict[str, Any]
) -> None:
    trials, recorder = Trials(make_form(folder, evaluation, **arguments), tmp_path), Recorder()
    metrics = trials.run(0, recorder)
    reached = max(recorder.values) if evaluation == "best" else recorder.values[-1]
    assert recorder.values[-1] != max(recorder.values), "or the test shows nothing"
    assert metrics["eval_f1"] == reached
    best = trials.store.location(0, BEST)
    assert best is not None
    assert evaluate(best, trials.form) == pytest.approx(metrics["eval_f1"], abs=1e-6)
    assert not list(Path(best).glob("*optimizer*"))
    assert len(list((tmp_path / "trials" / "0").glob("checkpoint-[0-9]*"))) == 1, "the node's disk holds the last alone"


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


@pytest.mark.parametrize(("steps", "stops"), [(40, (1, 15, 20, 33, 40)), (30, (30,))])
@pytest.mark.parametrize("strategy", ["epoch", "steps", "no"])
def test_a_trial_that_was_told_to_stop_does_no_step_twice(
    folder: Path, tmp_path: Path, strategy: str, steps: int, stops: tuple[int, ...]
) -> None:
    """In the middle of an epoch of 20 steps, at its end, just after an evaluation, and when all steps are done, which
    may be in the middle of an epoch, too."""
    evaluations = {"eval_strategy": strategy} | ({"eval_steps": 15} if strategy == "steps" else {})
    form = make_form(folder, max_steps=steps, **evaluations)
    trials, whole = Trials(form, tmp_path), Recorder()
    expected = trials.run(0, whole)
    assert whole.trained == steps
    for stop_at in stops:
        first, second = Recorder(stop_at=stop_at), Recorder()
        with pytest.raises(TrialStopped):
            trials.run(10 * stop_at, first)
        found = trials.run(10 * stop_at + 1, second, continues=10 * stop_at)
        assert (first.trained, second.trained) == (stop_at, steps - stop_at)
        assert second.past == first.steps
        assert first.steps + second.steps == whole.steps
        assert second.values == whole.values
        assert {name: found[name] for name in ("eval_f1", "eval_loss")} == {
            name: expected[name] for name in ("eval_f1", "eval_loss")
        }


@pytest.mark.parametrize("schedule", ["linear", "reduce_lr_on_plateau", "greedy"])
def test_a_trial_that_goes_on_with_another_learning_rate_learns_by_it(
    folder: Path, tmp_path: Path, schedule: str
) -> None:
    """As population based training does; with none at all nothing changes any more, and from none on it begins."""
    trials = Trials(make_form(folder, lr_scheduler_type=schedule), tmp_path)
    first, second, third = Recorder(until=3), Recorder(until=4), Recorder()
    with pytest.raises(CutOffError):
        trials.run(50, first)
    with pytest.raises(CutOffError):
        trials.run(51, second, continues=50, learning_rate=0.0)
    assert len(set(first.values)) == 2
    assert second.values[1:] == [first.values[-1]] * 2
    trials.run(52, third, continues=51, learning_rate=3e-3)
    assert third.values[-1] != first.values[-1]


class OutOfMemoryOnce(Recorder):
    """In its first step."""

    def stopping(self) -> bool:
        if self.trained == 0:
            self.trained = 1
            raise RuntimeError("CUDA out of memory.")
        return super().stopping()


def test_so_does_one_whose_batches_were_too_large_at_first(folder: Path, tmp_path: Path) -> None:
    """Training begins anew, and its optimizer comes from the checkpoint once more."""
    trials = Trials(make_form(folder, auto_find_batch_size=True), tmp_path)
    first, second = Recorder(until=3), OutOfMemoryOnce()
    with pytest.raises(CutOffError):
        trials.run(50, first)
    trials.run(51, second, continues=50, learning_rate=0.0)
    assert second.values[1:] == [first.values[-1]] * (len(second.values) - 1)
    assert second.trained > 1


@pytest.mark.parametrize("arguments", [{}, {"eval_strategy": "steps", "eval_steps": 5}, {"eval_on_start": True}])
def test_a_trial_that_was_lost_after_its_last_step_makes_no_other(
    folder: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """In the middle of an epoch."""
    trials = Trials(make_form(folder, max_steps=30, **arguments), tmp_path)
    whole, again = Recorder(), Recorder()
    expected = trials.run(0, whole)
    found = trials.run(1, again, continues=0)
    assert (whole.trained, again.trained, again.steps) == (30, 0, [])
    assert again.past == whole.steps
    assert found == expected


@pytest.mark.parametrize(("steps", "lost"), [(40, 1), (40, 2), (30, 2)])
def test_what_is_saved_before_an_epochs_evaluation_takes_none_of_it_away(
    folder: Path, tmp_path: Path, steps: int, lost: int
) -> None:
    """Lost while it evaluates, and told to stop when the epoch's steps are done: it saves after every step."""
    trials = Trials(make_form(folder, max_steps=steps, save_strategy="steps", save_steps=1), tmp_path)
    whole = Recorder()
    expected = trials.run(0, whole)
    for number, first in enumerate((Recorder(until=lost), Recorder(stop_at=min(20 * lost, steps))), 1):
        second = Recorder()
        with pytest.raises((CutOffError, TrialStopped)):
            trials.run(10 * number, first)
        found = trials.run(10 * number + 1, second, continues=10 * number)
        assert (first.steps + second.steps, second.values) == (whole.steps, whole.values)
        assert found["eval_f1"] == expected["eval_f1"]


def test_the_evaluation_before_the_first_step_is_no_result(folder: Path, tmp_path: Path) -> None:
    """Nor is the one that is made again where the trial goes on."""
    trials = Trials(make_form(folder, eval_on_start=True, num_train_epochs=2), tmp_path)
    whole, first, second = Recorder(), Recorder(stop_at=30), Recorder()
    trials.run(0, whole)
    with pytest.raises(TrialStopped):
        trials.run(1, first)
    trials.run(2, second, continues=1)
    assert whole.steps == first.steps + second.steps == [1, 2]
    assert second.values == whole.values


def test_checkpoints_without_what_training_needs_are_refused(folder: Path) -> None:
    with pytest.raises(
        InvalidStudyError, match=r"arguments\.save_only_model: a trial that goes on needs its optimizer"
    ):
        make_form(folder, save_only_model=True)
    make_form(folder, save_only_model=False)


def test_also_when_they_are_searched(folder: Path) -> None:
    choices = {"save_only_model": {"type": "categorical", "choices": [True, False]}}
    fields = make_form(folder)[0].model_dump(by_alias=True, exclude_none=True)
    with pytest.raises(InvalidStudyError, match=r"searchSpace\.save_only_model: cannot be set, a trial that goes on"):
        load_form(spec(**fields | {"searchSpace": {"parameters": choices}}), folder).prepare()
    del fields["checkpoints"]
    load_form(spec(**fields | {"searchSpace": {"parameters": choices}}), folder).prepare()


class OnFour(TrainingArguments):
    """As on a machine where torch counts four."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._n_gpu = 4


def test_a_single_rank_trains_on_one_of_the_gpus_that_it_sees(
    folder: Path, tmp_path: Path, made: tuple[StudySpec, Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would train on all, each with a batch of its own: a quarter of the steps."""
    expected = Recorder()
    Trials(made, tmp_path / "one").run(0, expected)
    monkeypatch.setattr(trainer, "TrainingArguments", OnFour)
    found = Recorder()
    Trials(made, tmp_path / "four").run(0, found)
    assert (found.trained, found.values) == (expected.trained, expected.values)
