"""Language modelling, causal and masked; losses of tokens."""

import math
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, Trainer

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.characters import character_tokenizer
from hpstudy.training.metrics import language_metrics
from hpstudy.training.tasks.tokens import next_token_loss, token_loss
from tests.training.forms import BERT, prepared, run, splits_of, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")

GPT = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 32, "vocab_size": 60}
CAUSAL, MASKED = "causal-language-modeling", "masked-language-modeling"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Words of three letters: the second and third follow from the first."""
    source = random.Random(0)
    lines = ["".join(source.choice(["abc ", "bcd ", "xyz "]) for _ in range(8)) for _ in range(300)]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    return tmp_path


def test_the_next_token_is_learnt(folder: Path) -> None:
    data = {"text": "words.txt", "maxLength": 32, "test": 0.1}
    arguments = {"num_train_epochs": 3, "per_device_train_batch_size": 8}
    metrics = ["perplexity", "accuracy"]
    study = task_spec(CAUSAL, data, "perplexity", metrics=metrics, arguments=arguments, model={"config": GPT})
    form = prepared(study, folder)
    found, _ = run(form, study, folder, learning_rate=0.01)
    # One in three words to choose: log 3 for every fourth token, 1.32 if nothing else is to learn. At random: 13.
    assert 1.2 < found["eval_perplexity"] < 2.2
    assert found["eval_accuracy"] > 0.6
    assert found["test_perplexity"] == pytest.approx(found["eval_perplexity"], rel=0.2)
    assert found["eval_perplexity"] == pytest.approx(math.exp(found["eval_loss"]), rel=0.02)


def test_hidden_tokens_are_learnt_and_those_of_the_evaluation_stay_the_same(folder: Path) -> None:
    data = {"text": "words.txt", "maxLength": 32, "mlmProbability": 0.2}
    arguments = {"num_train_epochs": 4, "per_device_train_batch_size": 8}
    metrics = ["perplexity", "accuracy"]
    study = task_spec(MASKED, data, "accuracy", metrics=metrics, arguments=arguments)
    form, again = prepared(study, folder), prepared(study, folder)
    assert form._data.validation[:] == again._data.validation[:]
    hidden = [label for row in form._data.validation["labels"] for label in row if label != -100]
    share = len(hidden) / sum(map(len, form._data.validation["labels"]))
    assert 0.13 < share < 0.25
    batch, other = (form._data.collate([form._data.train[0], form._data.train[1]]) for _ in range(2))
    assert not torch.equal(batch["labels"], other["labels"]), "in training others are hidden each time"
    found, _ = run(form, study, folder, learning_rate=0.01)
    assert found["eval_accuracy"] > 0.3, "the most frequent character has 0.25"
    assert found["eval_perplexity"] < 9, "at random 13"


def test_texts_follow_one_another_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(["abcd", "efgh", "ijkl", "mnop", "qrst"]))
    study = task_spec(CAUSAL, {"text": "t.txt", "maxLength": 10}, model={"config": GPT})
    form = prepared(study, tmp_path)
    blocks = form._data.train["input_ids"]
    assert [len(block) for block in blocks] == [10, 10, 4], "four texts of four letters, each between two ends"
    tokens = form._processor.convert_ids_to_tokens([token for block in blocks for token in block])
    assert tokens.count("[CLS]") == tokens.count("[SEP]") == 4
    batch = form._data.collate([form._data.train[0], form._data.train[2]])
    assert batch["labels"][:, 0].tolist() == [-100, -100]
    assert batch["labels"][1, 4:].tolist() == [-100] * 6
    assert torch.equal(batch["labels"][0, 1:], batch["input_ids"][0, 1:])


def test_lines_stay_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(f"line {number:02}" for number in range(40)))
    splits = splits_of(task_spec(CAUSAL, {"text": "t.txt", "test": 0.2}, model={"config": GPT}), tmp_path)
    assert splits.test is not None
    for rows in (splits.train, splits.validation, splits.test):
        assert list(rows["text"]) == sorted(rows["text"])


def test_the_loss_is_that_of_transformers_causal_models() -> None:
    """Which normalise by the count they are given, as ours does for all models."""
    config = AutoConfig.for_model(
        "llama", vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(0, 20, (3, 7))
    labels = ids.clone()
    labels[:, 0] = labels[1, 4:] = -100
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels, num_items_in_batch=torch.tensor(30)).loss
        outputs = model(input_ids=ids)
    assert next_token_loss(0.0)(outputs, labels, torch.tensor(30)) == pytest.approx(expected.item())
    logits, target = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    assert next_token_loss(0.1)(outputs, labels).item() == pytest.approx(
        functional.cross_entropy(logits, target, label_smoothing=0.1).item()
    )
    assert token_loss(0.0)(outputs, torch.full_like(labels, -100)).item() == 0, "nothing labelled is no division by 0"


def test_accumulated_batches_of_unequal_length_weigh_every_token_the_same(folder: Path) -> None:
    """BERT divides by its own micro-batch's tokens; the Trainer's sum would be another one."""
    results = {}
    rows = [f"{'ab' * (n % 12 + 1)} {n}" for n in range(120)]
    for batch, steps in ((8, 1), (2, 4)):
        arguments = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": steps,
            "num_train_epochs": 1,
            "label_smoothing_factor": 0.1,
        }
        study = task_spec(
            "token-classification", tags_of(folder, rows), "accuracy", metrics=["accuracy"], arguments=arguments
        )
        results[batch] = run(prepared(study, folder), study, folder, learning_rate=0.01)[0]["eval_loss"]
    assert results[2] == pytest.approx(results[8], rel=1e-4)


def tags_of(folder: Path, rows: list[str]) -> dict[str, Any]:
    lines = [f"{' '.join(row)},{' '.join('B-X' if c == 'a' else 'O' for c in row if c != ' ')}" for row in rows]
    (folder / "tags.csv").write_text("\n".join(["tokens,ner_tags", *lines]))
    return {"csv": "tags.csv"}


def test_an_encoder_does_not_see_what_it_is_to_predict(folder: Path) -> None:
    form = prepared(task_spec(CAUSAL, {"text": "words.txt"}, model={"config": BERT}), folder)
    model = form._models.make({}, {}).eval()
    ids = form._data.collate([form._data.train[0]])["input_ids"][:, :10]
    other = ids.clone()
    other[0, -1] = ids[0, -1] + 1
    with torch.no_grad():
        logits, changed = (model(input_ids=each).logits[0, :-1] for each in (ids, other))
    assert torch.equal(logits, changed)


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path) -> None:
    """As GPT-2's."""
    tokenizer = character_tokenizer(["abcdxyz "], 60)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder / "tokenizer")
    rows = [{"text": "ab" * (1 + n % 3), "label": n % 2} for n in range(40)]
    rows = [row | {"text": f"{row['text']} {n}"} for n, row in enumerate(rows)]
    write_lines(folder / "rows.json", rows)
    model = {"config": GPT, "tokenizer": "tokenizer"}
    study = task_spec("text-classification", {"json": "rows.json"}, model=model, arguments={"max_steps": 2})
    form = prepared(study, folder)
    assert form._processor.pad_token == "[SEP]"
    assert form._models.make({}, {}).config.pad_token_id == form._processor.eos_token_id
    assert run(form, study, folder, learning_rate=0.01)[0]["eval_accuracy"] >= 0


def test_metrics_of_language_are_over_all_tokens() -> None:
    sums = numpy.array([[3.0, 1, 2], [1.0, 5, 6]])
    found = language_metrics(["perplexity", "accuracy"], sums)
    assert found == {"perplexity": pytest.approx(math.exp(4 / 8)), "accuracy": 6 / 8}
    assert math.isfinite(language_metrics(["perplexity"], [[1e9, 0, 1]])["perplexity"])


def test_what_a_rank_gathers_of_a_batch_is_three_numbers_a_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []
    original = Trainer.evaluation_loop

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        gathered.append(output.predictions.shape)
        return output

    monkeypatch.setattr(Trainer, "evaluation_loop", spy)
    study = task_spec(CAUSAL, {"text": "words.txt", "maxLength": 32}, model={"config": GPT}, arguments={"max_steps": 1})
    form = prepared(study, folder)
    run(form, study, folder, learning_rate=0.01)
    assert gathered == [(len(form._data.validation), 3)]


@pytest.mark.parametrize(
    ("task", "model", "dataset", "complaint"),
    [
        (CAUSAL, GPT, {"maxLength": 33}, "dataset.maxLength: 33, but the model takes texts of 32 tokens at most"),
        (MASKED, GPT, {}, "model: "),
        (
            CAUSAL,
            {"model_type": "mixtral", "output_router_logits": True, "vocab_size": 60},
            {},
            "set output_router_logits to false",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(
    folder: Path, task: str, model: dict[str, Any], dataset: dict[str, Any], complaint: str
) -> None:
    study = task_spec(task, {"text": "words.txt", **dataset}, model={"config": model})
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(study, folder)
    assert refusal.value.reason in ("InvalidModel", "InvalidDataset")
    assert complaint in refusal.value.message


def test_a_tokenizer_may_be_given_and_must_fit(folder: Path) -> None:
    character_tokenizer(["abcdxyz "], 60).save_pretrained(folder / "tokenizer")
    study = task_spec(MASKED, {"text": "words.txt"}, model={"config": BERT, "tokenizer": "tokenizer"})
    assert len(prepared(study, folder)._processor) == 13
    small = {**BERT, "vocab_size": 5}
    study = task_spec(MASKED, {"text": "words.txt"}, model={"config": small, "tokenizer": "tokenizer"})
    with pytest.raises(InvalidStudyError, match="tokenizer has 13 tokens, and vocab_size is 5; raise vocab_size"):
        prepared(study, folder)
