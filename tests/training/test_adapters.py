"""Adapters: which weights train, where their ranks come from, and that what is saved loads."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, Trainer

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.characters import character_tokenizer
from tests.support.builders import spec
from tests.training.forms import BERT, RATE, prepared, run, task_fields, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")

LORA = {"type": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pretrained model without a pooler or a head, and texts whose class is their more frequent letter."""
    source = random.Random(0)
    rows = []
    for number in range(200):
        weights = [3, 1] if number % 2 else [1, 3]
        rows.append({"text": "".join(source.choices("ab", weights, k=12)), "label": number % 2})
    write_lines(tmp_path / "rows.json", rows)
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**BERT, pad_token_id=0), add_pooling_layer=False).save_pretrained(
        tmp_path / "base"
    )
    character_tokenizer(["ab"], 60, segments=True).save_pretrained(tmp_path / "base")
    return tmp_path


def fields(**changes: Any) -> dict[str, Any]:
    arguments = {"num_train_epochs": 3, "per_device_train_batch_size": 16}
    form = {"model": {"name": "base"}, "peft": LORA, "arguments": arguments} | changes
    return task_fields("text-classification", {"json": "rows.json"}, "accuracy", **form)


def test_only_the_adapter_and_what_the_checkpoint_lacks_train(folder: Path) -> None:
    form = prepared(spec(**fields()), folder)
    model = form._models.make({}, {})
    training = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in training)
    assert {name.split(".modules_to_save")[0].rsplit(".", 1)[-1] for name in training if "lora_" not in name} == {
        "classifier",
        "dense",
    }
    assert sum("lora_A" in name for name in training) == 2
    base = AutoModel.from_pretrained(folder / "base", add_pooling_layer=False)
    kept = model.base_model.model.bert.encoder.layer[0].attention.self.query.base_layer.weight
    assert torch.equal(kept, base.encoder.layer[0].attention.self.query.weight)


def test_an_adapter_is_learnt_and_loads_as_it_was_evaluated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Trainer] = []
    original = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, *a, **k: made.append(self) or original(self, *a, **k))
    study = spec(**fields())
    form = prepared(study, folder)
    found, _ = run(form, study, folder, learning_rate=0.02)
    assert found["eval_accuracy"] > 0.75
    (trainer,) = made
    trainer.save_model(folder / "adapter")
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size < 60_000
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=2)
    loaded = PeftModel.from_pretrained(base, folder / "adapter").eval()
    assert loaded.peft_config["default"].base_model_name_or_path == str(folder / "base")
    batch = form._data.collate([form._data.validation[row] for row in range(8)])
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
        assert torch.allclose(loaded(**batch).logits, expected, atol=1e-6)


def test_ranks_are_searched(folder: Path) -> None:
    space = {
        "parameters": RATE["parameters"]
        | {
            "peft.r": {"type": "int", "low": 1, "high": 16},
            "peft.lora_alpha": {"type": "int", "low": 1, "high": 16},
        }
    }
    study = spec(**fields(arguments={"max_steps": 1}) | {"searchSpace": space})
    form = prepared(study, folder)
    sizes = [
        run(form, study, folder, learning_rate=0.01, **{"peft.r": rank, "peft.lora_alpha": 16})[0]["model_parameters"]
        for rank in (1, 9)
    ]
    assert sizes[1] - sizes[0] == 8 * 2 * (32 + 32), "eight more ranks, two matrices of 32 x 32"
    assert form._models.make({}, {"r": 2, "lora_alpha": 6}).peft_config["default"].lora_alpha == 6


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"peft": LORA | {"rank": 3}}, "peft.rank: no field of LoraConfig"),
        ({"peft": LORA | {"lora_dropot": 0.1}}, "did you mean lora_dropout?"),
        ({"peft": LORA | {"r": "many"}}, "peft.r: input should be a valid integer"),
        ({"peft": LORA | {"task_type": "SEQ_CLS"}}, "peft.task_type: cannot be set, it follows from the task"),
        ({"peft": LORA | {"target_modules": ["nothing"]}}, "peft: No modules were targeted"),
        ({"peft": LORA | {"r": 0}}, "peft: "),
        ({"peft": None, "space": {"peft.r": {"type": "int", "low": 1, "high": 2}}}, "set trial.transformers.peft"),
        ({"space": {"peft.q": {"type": "int", "low": 1, "high": 2}}}, "searchSpace.peft.q: no field of LoraConfig"),
    ],
)
def test_what_no_adapter_takes_is_refused(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    space = changes.pop("space", RATE["parameters"])
    given = fields(**changes) | {"searchSpace": {"parameters": space}}
    if changes.get("peft", 0) is None:
        del given["trial"]["transformers"]["peft"]
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(spec(**given), folder)
    assert complaint in refusal.value.message


def test_the_head_of_a_checkpoint_is_taken_where_it_fits(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_config(BertConfig(**BERT, pad_token_id=0, num_labels=2))
    model.save_pretrained(folder / "tuned")
    character_tokenizer(["ab"], 60).save_pretrained(folder / "tuned")
    data = {"json": "rows.json"}
    same = prepared(task_spec("text-classification", data, model={"name": "tuned"}), folder)._models.make({}, {})
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    rows = [{"text": f"{n:03}", "label": n % 3} for n in range(30)]
    write_lines(folder / "three.json", rows)
    study = task_spec("text-classification", {"json": "three.json"}, model={"name": "tuned"})
    other = prepared(study, folder)._models.make({}, {})
    assert other.classifier.weight.shape == (3, 32)
    assert torch.equal(other.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
