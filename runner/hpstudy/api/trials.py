"""What a trial is: the forms of ``spec.trial``."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hpstudy.api.fields import Entry, Name
from hpstudy.api.model import ApiModel, Rule, exactly_one


class ModelSource(ApiModel):
    """The model that every trial starts from."""

    name: Name | None = None
    """A pretrained model: a name on the Hub or a folder."""
    config: dict[str, Any] | None = None
    """A model trained from scratch: the fields of its configuration, model_type among them. The tokenizer takes single
    characters, its vocabulary (vocab_size entries) comes from the training data."""

    rules = (
        exactly_one("model", "name", "config"),
        Rule("model.config needs a model_type", lambda m: m.config is None or bool(m.config.get("model_type"))),
    )


class Dataset(ApiModel):
    """Labelled examples in a file. Duplicates are removed before the rows are split."""

    csv: Annotated[str, Field(min_length=1, max_length=4096)]
    """Path of a CSV file with a header, relative to the manifest's folder or, in a cluster, to the container's."""
    text_column: Name = "text"
    """Column of the text."""
    label_column: Name = "label"
    """Column of the label; any values, each distinct one is a class."""
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """Texts are cut to so many tokens."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """Use so many rows, drawn at random, instead of all."""
    validation: Annotated[float, Field(ge=0.01, le=0.9)] = 0.2
    """Share of the rows that trials are evaluated on."""
    test: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of the rows that no trial is judged by: metrics on them (test_*) are recorded, never optimised."""

    rules = (
        Rule(
            "validation and test together must leave rows to train on (at most 0.95)",
            lambda d: d.validation + d.test <= 0.95,
            "(has(self.validation) ? self.validation : 0.2) + (has(self.test) ? self.test : 0.0) <= 0.95",
        ),
    )


class TransformersTrial(ApiModel):
    """A trial without code: a Hugging Face Trainer run. Parameters named like a field of TrainingArguments set it;
    parameters named model.FIELD set a field of the model's configuration."""

    task: Literal["text-classification"]
    """What the model is trained to do."""
    model: ModelSource
    """Where the model comes from."""
    dataset: Dataset
    """What it is trained and evaluated on."""
    metrics: Annotated[tuple[Literal["accuracy", "f1", "precision", "recall"], ...], Field(min_length=1)] = (
        "accuracy",
        "f1",
    )
    """Computed at each evaluation as eval_NAME; f1, precision and recall are macro averages."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Fields of TrainingArguments that are the same for every trial."""
    compute_objective: Entry | None = None
    """module:function in the worker's image; called with the metrics of each evaluation, returns the value of the
    objective, or one for each objective in order."""
    evaluation: Literal["best", "last"] = "best"
    """Which of a trial's evaluations counts: the best by the first objective, or the last."""


class Script(ApiModel):
    """A training script of the user's, run on every rank as under torchrun. Its call of
    hpstudy.hyperparameter_search is the loop over the trials, for which the study gives storage, budget and, where the
    script has no hp_space, the search space."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """The script, relative to the manifest's folder or, in a cluster, to the container's."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=200)] = Field(default_factory=list)
    """Its command line."""


class Trial(ApiModel):
    """What a trial is, in exactly one form."""

    transformers: TransformersTrial | None = None
    """A Hugging Face Trainer run, no code needed."""
    function: Entry | None = None
    """module:function in the worker's image; called on every rank as function(trial), returns the value of the
    objective, one for each objective, or metrics by name."""
    script: Script | None = None
    """A Trainer script that calls hpstudy.hyperparameter_search."""

    rules = (exactly_one("trial", "transformers", "function", "script"),)
