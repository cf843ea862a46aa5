"""Two ranks with accumulated batches train what one process trains, token by token, and score what it scores."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpstudy.storage import attributes
from tests.ranks.groups import group
from tests.support.builders import spec
from tests.training.forms import prepared, run, task_fields, write_lines

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and Transformers are not ours to mend

GPT = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": 40}
GPT |= {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}


def rows_of(task: str) -> list[dict[str, Any]]:
    """Of very different lengths: a mean of means would be another one."""
    source = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(80):
        words = source.choices(["anna", "bob", "is", "in", "rome"], k=source.choice([1, 2, 12]))
        match task:
            case "token-classification":
                rows.append(
                    {"tokens": words, "ner_tags": ["B-X" if word in ("anna", "rome") else "O" for word in words]}
                )
            case "question-answering":
                context = f"{' '.join(words)} at {number}"
                answers = {"text": [str(number)], "answer_start": [context.rindex(" ") + 1]}
                rows.append({"question": "when?", "context": context, "answers": answers})
            case _:
                rows.append({"text": " ".join([*words, str(number)])})
    return rows


@pytest.mark.parametrize(
    ("task", "metrics", "more"),
    [
        ("token-classification", ["f1", "accuracy"], {}),
        ("question-answering", ["f1", "exact_match"], {}),
        ("causal-language-modeling", ["perplexity", "accuracy"], {"model": {"config": GPT}}),
    ],
)
def test_two_ranks_train_as_one(tmp_path: Path, task: str, metrics: list[str], more: Mapping[str, Any]) -> None:
    write_lines(tmp_path / "rows.json", rows_of(task))
    dataset = {"json": str(tmp_path / "rows.json"), "maxLength": 24, "validation": 0.25}
    fields = {}
    for ranks, arguments in (
        (1, {"per_device_train_batch_size": 8}),
        (2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    ):
        # Batches for evaluation that two ranks cannot share evenly, so that rows are padded and taken away again.
        arguments |= {"per_device_eval_batch_size": 3, "eval_strategy": "steps", "max_steps": 4, "eval_steps": 4}
        fields[ranks] = task_fields(task, dataset, metrics[0], metrics=metrics, arguments=arguments, **more)
        fields[ranks]["searchSpace"] = {"parameters": {"learning_rate": {"type": "float", "low": 0.01, "high": 0.01}}}
    alone = spec(**fields[1])
    expected, _ = run(prepared(alone, tmp_path), alone, tmp_path, learning_rate=0.01)
    with group(tmp_path, "", processes=2, budget={"maxTrials": 1}, **fields[2]) as made:
        assert made.join(90) == [0]
        found = made.trials()[0].user_attrs[attributes.METRICS]
    assert expected["epoch"] < 1, "the end of an epoch, where ranks get equal shares, is not what this is about"
    for name in metrics:
        assert found[f"eval_{name}"] == pytest.approx(expected[f"eval_{name}"], rel=1e-4), name
