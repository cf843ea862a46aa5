"""The transformers form: data without leaks, names checked, the Trainer's faults under DDP mended."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Objective, StudySpec
from hpstudy.storage import attributes
from hpstudy.training.characters import character_tokenizer
from hpstudy.training.objective import Compute, load_objective
from hpstudy.training.trial import Trial
from hpstudy.trials.outcome import conclude
from tests.ranks.groups import group
from tests.support.builders import spec
from tests.training.forms import RATE, TINY_BERT, WITHOUT_DROPOUT, Recorder, prepared, run, splits_of

CONFIG = TINY_BERT | WITHOUT_DROPOUT
F1 = [{"metric": "eval_f1", "direction": "maximize"}]
pytestmark = pytest.mark.filterwarnings("default")  # those of torch and Transformers are not ours to mend


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """400 rows that a small model learns in a few epochs: each class has its frequent letters."""
    source = random.Random(0)
    lines = []
    for number in range(400):
        label, weights = ("up", [3, 3, 3, 1, 1, 1]) if number % 2 else ("down", [1, 1, 1, 3, 3, 3])
        lines.append(f"{''.join(source.choices('abcxyz', weights, k=10))},{label}")
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def form_spec(
    model: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None, **arguments: Any
) -> StudySpec:
    return spec(**form_fields(model, dataset, **arguments))


def form_fields(
    model: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None, **arguments: Any
) -> dict[str, Any]:
    transformers = {
        "task": "text-classification",
        "model": model or {"config": CONFIG},
        "dataset": {"csv": "reviews.csv", "maxLength": 12} | (dataset or {}),
        "arguments": {"num_train_epochs": 2} | arguments,
    }
    return {"objectives": F1, "searchSpace": RATE, "trial": {"transformers": transformers}}


def test_duplicates_and_contradictions_are_gone_before_the_split(tmp_path: Path) -> None:
    lines = [f"row {i},{'a' if i % 2 else 'b'}" for i in range(100)]
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "\n".join([*lines, *lines, "row 1 ,a", "row 2,a", ",a"]) + "\n")
    data = splits_of(form_spec(None, {"csv": "d.csv", "validation": 0.2, "test": 0.2}), tmp_path)
    assert data.test is not None
    splits = (data.train, data.validation, data.test)
    texts = [text for split in splits for text in split["text"]]
    assert len(texts) == len(set(texts)) == 99, "row 2 has two labels"
    assert [len(split) for split in splits] == [59, 20, 20]
    assert all(abs(list(split["label"]).count("a") - len(split) / 2) <= 1 for split in splits), "stratified"


def test_the_split_is_the_same_every_time(reviews: Path) -> None:
    study = form_spec(None, {"maxRows": 100})
    first, again = splits_of(study, reviews.parent), splits_of(study, reviews.parent)
    assert first.train[:] == again.train[:]
    assert first.validation[:] == again.validation[:]
    assert len(first.train) == 80


@pytest.mark.parametrize(
    ("text", "dataset", "complaint"),
    [
        ("text,label\na,1\n", {"csv": "absent.csv"}, "cannot read"),
        ("text,stars\na,1\n", {}, "has no column label; it has text, stars"),
        ("text,label\na,1\nb,1\nc,1\n", {}, "needs two classes or more"),
        ("text,label\na,1\nb,1\nc,1\nd,2\n", {}, "'2': 1"),
        ("", {}, "cannot read"),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    tmp_path: Path, text: str, dataset: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(InvalidStudyError, match=complaint) as refusal:
        splits_of(form_spec(None, {"csv": "d.csv"} | dataset), tmp_path)
    assert refusal.value.reason == "InvalidDataset"


def test_the_character_tokenizer_knows_the_frequent_characters() -> None:
    tokenizer = character_tokenizer(["很好很好", "很差", "一"], vocabulary_size=8)
    encoded = tokenizer("很好X")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["[CLS]", "很", "好", "[UNK]", "[SEP]"]
    assert len(tokenizer) == 8


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (form_fields(learning_rte=1), "arguments.learning_rte: neither a field of TrainingArguments"),
        (form_fields(learning_rate="fast"), "arguments.learning_rate: input should be a valid number"),
        (
            form_fields(lr_scheduler_kwargs=4),
            "lr_scheduler_kwargs: input should be a valid dictionary, or input should",
        ),
        (form_fields(output_dir="x"), "arguments.output_dir: cannot be set, each trial has a folder of its own"),
        (form_fields(push_to_hub=True), "arguments.push_to_hub: cannot be set, the study keeps the best trial's"),
        (form_fields(lr_scheduler_type="cosin"), "arguments.lr_scheduler_type: cosin is not a valid SchedulerType"),
        (form_fields(optim="adamw"), "arguments.optim: adamw is not a valid OptimizerNames"),
        (form_fields(eval_strategy="epochs"), "arguments.eval_strategy: epochs is not a valid IntervalStrategy"),
        (form_fields(load_best_model_at_end=True), "load_best_model_at_end: needs save_strategy: epoch (or best)"),
        (form_fields(save_strategy="best"), "arguments.save_strategy: best of what?"),
        (form_fields(eval_steps=50), "arguments.eval_steps: changes nothing without arguments.eval_strategy: steps"),
        (form_fields(save_steps=50), "arguments.save_steps: changes nothing without arguments.save_strategy: steps"),
        (
            form_fields() | {"searchSpace": {"parameters": {"eval_steps": {"type": "int", "low": 1, "high": 9}}}},
            "searchSpace.eval_steps: changes nothing without arguments.eval_strategy: steps, it is epoch",
        ),
        (form_fields({"name": "./absent"}), "model: "),
        (form_fields({"config": {"model_type": "nonsense"}}), "model: "),
        (form_fields({"config": CONFIG | {"hidden_size": 15}}), "model: "),
        (
            form_fields() | {"searchSpace": {"parameters": {"lr": {"type": "float", "low": 0, "high": 1}}}},
            "searchSpace.lr: neither a field of TrainingArguments nor model.FIELD",
        ),
    ],
)
def test_what_no_trial_could_run_is_refused_when_preparing(
    reviews: Path, fields: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(spec(**fields), reviews.parent)
    assert complaint in refusal.value.message


def test_a_trial_is_reproducible_from_its_parameters_alone(reviews: Path, tmp_path: Path) -> None:
    study = form_spec(num_train_epochs=1)
    form = prepared(study, reviews.parent)
    first, _ = run(form, study, tmp_path, learning_rate=0.03, seed=5)
    run(form, study, tmp_path, learning_rate=0.003, seed=9)
    again, _ = run(form, study, tmp_path, learning_rate=0.03, seed=5)
    other, _ = run(form, study, tmp_path, learning_rate=0.03, seed=6)
    assert again["eval_loss"] == first["eval_loss"] != other["eval_loss"]


def test_the_best_evaluation_counts_and_brings_its_test_metrics(reviews: Path, tmp_path: Path) -> None:
    study = form_spec(None, {"test": 0.2}, num_train_epochs=6, per_device_train_batch_size=16)
    metrics, recorder = run(prepared(study, reviews.parent), study, tmp_path, learning_rate=0.01)
    assert recorder.steps == [1, 2, 3, 4, 5, 6], "steps are epochs"
    scores = [report["eval_f1"] for report in recorder.metrics]
    assert metrics["eval_f1"] == max(scores)
    assert metrics["eval_f1"] > 0.8, "the task can be learnt"
    assert abs(metrics["test_f1"] - metrics["eval_f1"]) < 0.2
    assert metrics["model_parameters"] > 1000


def test_the_last_part_of_an_epoch_is_reported_as_one(reviews: Path, tmp_path: Path) -> None:
    study = form_spec(num_train_epochs=2.5)
    _, recorder = run(prepared(study, reviews.parent), study, tmp_path, learning_rate=0.01)
    assert recorder.steps == [1, 2, 3]


def test_the_last_evaluation_counts_where_the_user_says_so(reviews: Path, tmp_path: Path) -> None:
    scores: dict[str, tuple[float, float, float]] = {}
    for evaluation in ("best", "last"):
        fields = form_fields(None, {"test": 0.2}, num_train_epochs=4, per_device_train_batch_size=16)
        fields["trial"]["transformers"]["evaluation"] = evaluation
        fields["objectives"] = [{"metric": "f1", "direction": "minimize"}]
        study = spec(**fields)
        metrics, recorder = run(prepared(study, reviews.parent), study, tmp_path, learning_rate=0.01)
        reported = [report["eval_f1"] for report in recorder.metrics]
        scores[evaluation] = (metrics["eval_f1"], min(reported), reported[-1])
        assert abs(metrics["test_f1"] - metrics["eval_f1"]) < 0.25, "of the same evaluation"
    lowest, last = scores["best"][1:]
    assert lowest < last, "the case is one where it matters"
    assert scores["best"][0] == lowest, "named without its prefix"
    assert scores["last"] == (last, lowest, last)


def test_an_objective_without_a_metric_is_that_of_transformers(reviews: Path, tmp_path: Path) -> None:
    fields = form_fields(num_train_epochs=2) | {"objectives": [{"direction": "maximize"}]}
    study = spec(**fields)
    metrics, recorder = run(prepared(study, reviews.parent), study, tmp_path, learning_rate=0.01)
    for report in [*recorder.metrics, metrics]:
        assert report["objective"] == pytest.approx(report["eval_accuracy"] + report["eval_f1"])
    assert metrics["objective"] == max(report["objective"] for report in recorder.metrics)
    assert conclude(metrics, study).values == (metrics["objective"],)


def test_and_where_there_is_no_metric_it_is_the_loss() -> None:
    assert study_objective(None)({"eval_loss": 0.5, "eval_runtime": 3.0, "epoch": 1.0}) == {"objective": 0.5}


def study_objective(entry: str | None, *metrics: str) -> Compute:
    fields = form_fields()["trial"]["transformers"]
    trial = spec(trial={"transformers": fields | ({"computeObjective": entry} if entry else {})}).trial.transformers
    assert trial is not None
    named = [Objective(metric=metric, direction="minimize") for metric in metrics or ("objective",)]
    return load_objective(trial, named)


def cost(metrics: dict[str, float]) -> float:
    return 1 - metrics.pop("eval_f1")


def cost_and_loss(metrics: dict[str, float]) -> tuple[float, float]:
    return 1 - metrics["eval_f1"], metrics["eval_loss"]


def test_a_function_of_the_users_computes_the_objective_of_each_evaluation(reviews: Path, tmp_path: Path) -> None:
    fields = form_fields(num_train_epochs=5, per_device_train_batch_size=16)
    fields["trial"]["transformers"]["computeObjective"] = f"{__name__}:cost"
    study = spec(**fields | {"objectives": [{"direction": "minimize"}]})
    metrics, recorder = run(prepared(study, reviews.parent), study, tmp_path, learning_rate=0.01)
    assert [report["objective"] for report in recorder.metrics] == [1 - r["eval_f1"] for r in recorder.metrics]
    assert metrics["objective"] == min(report["objective"] for report in recorder.metrics)


def test_or_one_value_for_each_objective_in_order() -> None:
    compute = study_objective(f"{__name__}:cost_and_loss", "cost", "loss")
    assert compute({"eval_f1": 0.75, "eval_loss": 2.0}) == {"cost": 0.25, "loss": 2.0}
    with pytest.raises(TypeError, match=r"cost_and_loss returned .* it must return a number for cost"):
        study_objective(f"{__name__}:cost_and_loss", "cost")({"eval_f1": 0.75, "eval_loss": 2.0})


@pytest.mark.parametrize("entry", ["no_such_module:cost", f"{__name__}:no_such_function"])
def test_a_function_that_cannot_be_imported_is_refused_when_preparing(reviews: Path, entry: str) -> None:
    fields = form_fields()
    fields["trial"]["transformers"]["computeObjective"] = entry
    with pytest.raises(InvalidStudyError, match=r"trial\.transformers\.computeObjective: ") as refusal:
        prepared(spec(**fields), reviews.parent)
    assert refusal.value.reason == "ImportFailed"


def test_a_prune_ends_training_at_that_evaluation(reviews: Path, tmp_path: Path) -> None:
    import optuna

    study = form_spec(num_train_epochs=5)
    form, recorder = prepared(study, reviews.parent), Recorder(prune_at=2)
    with pytest.raises(optuna.TrialPruned):
        form.run(Trial(0, {"learning_rate": 0.01}, study.objectives, tmp_path / "out", recorder))
    assert recorder.steps == [1, 2]


def test_after_the_last_step_there_is_nothing_to_prune(reviews: Path, tmp_path: Path) -> None:
    """The trial is paid for, and its best evaluation may be an earlier one than the one that was judged."""
    study = form_spec(num_train_epochs=3)
    form, recorder = prepared(study, reviews.parent), Recorder(prune_at=3)
    metrics = form.run(Trial(0, {"learning_rate": 0.01}, study.objectives, tmp_path / "out", recorder))
    assert recorder.steps == [1, 2, 3]
    assert metrics["eval_f1"] == max(report["eval_f1"] for report in recorder.metrics)


def test_parameters_of_the_model_change_its_configuration(reviews: Path, tmp_path: Path) -> None:
    study = form_spec()
    form = prepared(study, reviews.parent)
    sizes = [
        run(form, study, tmp_path, num_train_epochs=1, **{"model.hidden_size": size})[0]["model_parameters"]
        for size in (8, 32)
    ]
    assert sizes[0] < sizes[1]


def test_a_pretrained_model_starts_from_its_weights_with_a_head_of_the_trials_seed(
    reviews: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel, BertConfig

    tokenizer = character_tokenizer(["abcxyz"], 40)
    base = AutoModel.from_config(BertConfig(**CONFIG, pad_token_id=0))
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    study = form_spec({"name": str(tmp_path / "base")})
    form = prepared(study, reviews.parent)
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(form._models.make({}, {}))
    embeddings = [model.bert.embeddings.word_embeddings.weight for model in models]
    assert all(torch.equal(weight, base.embeddings.word_embeddings.weight) for weight in embeddings)
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight)
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)
    assert run(form, study, tmp_path, learning_rate=0.01)[0]["eval_f1"] > 0.3


def test_two_ranks_train_as_one_with_the_batch_of_both(reviews: Path, tmp_path: Path) -> None:
    """Under DDP the Trainer multiplies a classifier's loss by the number of ranks; here it does not."""
    found = {}
    for processes, batch in ((1, 32), (2, 16)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        arguments = {"per_device_train_batch_size": batch, "num_train_epochs": 2, "dataset": {"csv": str(reviews)}}
        fields = form_fields(**arguments) | {"budget": {"maxTrials": 1}}
        fields["searchSpace"] = {"parameters": {"learning_rate": {"type": "float", "low": 0.01, "high": 0.01}}}
        with group(folder, "", processes=processes, **fields) as made:
            assert made.join(90) == [0]
            found[processes] = made.trials()[0].user_attrs[attributes.METRICS]
    assert found[2]["eval_loss"] == pytest.approx(found[1]["eval_loss"], rel=0.02)
    assert found[2]["eval_f1"] == pytest.approx(found[1]["eval_f1"], abs=0.05)
