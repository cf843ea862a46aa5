"""The ``transformers`` form of a trial: a Hugging Face Trainer run from names alone."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from hpstudy.api.fields import Entry, Name
from hpstudy.api.model import ApiModel, Rule, exactly_one
from hpstudy.api.tasks import TASKS

Path = Annotated[str, Field(min_length=1, max_length=4096)]

_SOURCES = ("name", "csv", "json_", "parquet", "text", "folder")
MAX_COLUMNS = 16
DEFAULT_VALIDATION = 0.2
DEFAULT_STRIDE = 128
DEFAULT_MLM_PROBABILITY = 0.15


class ModelSource(ApiModel):
    """The model that every trial starts from."""

    name: Name | None = None
    """A pretrained model: a name on the Hub, or a folder, absolute or relative as the data is."""
    config: dict[str, Any] | None = None
    """A model trained from scratch: the fields of its configuration, model_type among them."""
    tokenizer: Name | None = None
    """A tokenizer: a name on the Hub or a folder. Absent: the model's own; a model from scratch gets one that takes
    single characters, its vocabulary (vocab_size entries) from the training data."""

    rules = (
        exactly_one("model", "name", "config"),
        Rule("model.config needs a model_type", lambda m: m.config is None or bool(m.config.get("model_type"))),
    )


class Dataset(ApiModel):
    """Examples to train on and to evaluate on. Paths are relative to the manifest's folder or, in a cluster, to the
    container's."""

    name: Name | None = None
    """A data set on the Hub, or a folder that datasets.load_dataset reads."""
    subset: Name | None = None
    """Its configuration, where it has several."""
    revision: Name | None = None
    """Its branch, tag or commit on the Hub."""
    split: Name | None = None
    """Its split to train on. Absent: train."""
    csv: Path | None = None
    """A CSV file with a header. This and the following: a path, or a pattern (data/*.csv) for several files."""
    json_: Annotated[Path | None, Field(alias="json")] = None
    """A JSON file: one object a line, or a list of objects."""
    parquet: Path | None = None
    """A Parquet file."""
    text: Path | None = None
    """A plain text file, one example a line; for language modelling."""
    folder: Path | None = None
    """A folder of files, each an example: a folder for each class with its images or .txt files; for language modelling
    .txt files anywhere below it."""
    validation_from: Path | None = None
    """Where the examples to evaluate on are, as the training data is given: a path, or the name of a split. Absent: a
    share of the training data."""
    test_from: Path | None = None
    """Where the examples are that no trial is judged by. Absent: a share of the training data, or none."""
    columns: Annotated[dict[str, Name], Field(max_length=MAX_COLUMNS)] = Field(default_factory=dict)
    """Names of columns, where they have others than the task expects: text, textPair and label (text-classification,
    regression), tokens and tags (token-classification: tokens, ner_tags), question, context, answers and answerStart
    (question-answering: answer_start), text (language modelling), image and label (image-classification)."""
    max_length: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Texts are cut to so many tokens; those of language modelling are cut into blocks of so many, contexts of
    question-answering into overlapping windows. Absent: 128 (question-answering 384), or what the model allows."""
    stride: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Tokens by which neighbouring windows of a context overlap. Absent: 128, or a third of maxLength."""
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the tokens that masked language modelling hides. Absent: 0.15."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """Use so many rows of the training data, drawn at random, instead of all."""
    validation: Annotated[float, Field(ge=0.01, le=0.9)] | None = None
    """Share of the training data that trials are evaluated on instead. Absent: 0.2, unless validationFrom."""
    test: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of the training data that no trial is judged by: metrics on them (test_*) are recorded, never optimised."""

    rules = (
        exactly_one("dataset", *_SOURCES),
        Rule(
            "subset, revision and split go with name",
            lambda d: d.name is not None or (d.subset is None and d.revision is None and d.split is None),
            "has(self.name) || !(has(self.subset) || has(self.revision) || has(self.split))",
        ),
        Rule(
            "either validation or validationFrom",
            lambda d: d.validation is None or d.validation_from is None,
            "!(has(self.validation) && has(self.validationFrom))",
        ),
        Rule(
            "either test or testFrom",
            lambda d: not d.test or d.test_from is None,
            "!has(self.testFrom) || !has(self.test) || self.test == 0.0",
        ),
        Rule(
            "validation and test together must leave rows to train on (at most 0.95)",
            lambda d: d.validation_share + d.test <= 0.95,
            f"(has(self.validation) ? self.validation : has(self.validationFrom) ? 0.0 : {DEFAULT_VALIDATION})"
            " + (has(self.test) ? self.test : 0.0) <= 0.95",
        ),
    )

    @property
    def source(self) -> str:
        """Which of the sources it is."""
        return next(name for name in _SOURCES if getattr(self, name) is not None).rstrip("_")

    @property
    def validation_share(self) -> float:
        """Share of the training data that trials are evaluated on."""
        if self.validation_from is not None:
            return 0.0
        return DEFAULT_VALIDATION if self.validation is None else self.validation


def _rules_of(task: str) -> tuple[Rule, ...]:
    """What a study of this task may say; in a rule of its own for each task, so that each can name what is known."""
    known = TASKS[task]
    settings = sorted({setting for each in TASKS.values() for setting in each.settings} - known.settings)
    others = {source.rstrip("_") for source in _SOURCES} - set(known.sources)

    def holds(check: Any) -> Any:
        return lambda trial: trial.task != task or check(trial)

    def cel(condition: str) -> str:
        return f"self.task != '{task}' || {condition}"

    rules = [
        Rule(
            f"{task} has the metrics {', '.join(known.metrics)}",
            holds(lambda trial: set(trial.metrics or ()) <= set(known.metrics)),
            cel(f"!has(self.metrics) || self.metrics.all(m, m in {list(known.metrics)})"),
        ),
        Rule(
            f"dataset.columns of {task} are {', '.join(known.columns)}",
            holds(lambda trial: trial.dataset.columns.keys() <= known.columns.keys()),
            cel(f"!has(self.dataset.columns) || self.dataset.columns.all(c, c in {list(known.columns)})"),
        ),
        Rule(
            f"the data of {task} is given by {', '.join(known.sources)}",
            holds(lambda trial: trial.dataset.source in known.sources),
            cel(f"!({' || '.join(f'has(self.dataset.{other})' for other in sorted(others))})") if others else None,
        ),
    ]
    if settings:
        names = [to_camel(setting) for setting in settings]
        rules.append(
            Rule(
                f"{task} has no dataset.{', dataset.'.join(names)}",
                holds(lambda trial: all(getattr(trial.dataset, setting) is None for setting in settings)),
                cel(f"!({' || '.join(f'has(self.dataset.{name})' for name in names)})"),
            )
        )
    return tuple(rules)


class TransformersTrial(ApiModel):
    """A trial without code: a Hugging Face Trainer run. Parameters named like a field of TrainingArguments set it;
    parameters named model.FIELD set a field of the model's configuration, those named peft.FIELD one of the
    adapter's."""

    task: Literal[
        "text-classification",
        "token-classification",
        "question-answering",
        "causal-language-modeling",
        "masked-language-modeling",
        "image-classification",
        "regression",
    ]
    """What the model is trained to do."""
    model: ModelSource
    """Where the model comes from."""
    peft: dict[str, Any] | None = None
    """Train a small adapter instead of all weights: type (lora) and fields of the adapter's configuration by their own
    names: {type: lora, r: 8, lora_alpha: 16, lora_dropout: 0.1, target_modules: [query, value]}. See
    https://huggingface.co/docs/peft/package_reference/lora"""
    dataset: Dataset
    """What it is trained and evaluated on."""
    metrics: Annotated[list[Name], Field(min_length=1, max_length=20)] | None = None
    """Computed at each evaluation as eval_NAME. text-classification and image-classification: accuracy, f1, precision,
    recall (macro averages; absent: accuracy and f1). token-classification: f1, precision, recall of entities, accuracy
    of tags (absent: f1 and accuracy). question-answering: exact_match, f1 (absent: both). Language modelling:
    perplexity, accuracy (absent: perplexity). regression: mse, rmse, mae, r2, pearson, spearman (absent: rmse and
    pearson)."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Fields of TrainingArguments that are the same for every trial."""
    compute_objective: Entry | None = None
    """module:function in the worker's image; called with the metrics of each evaluation, returns the value of the
    objective, or one for each objective in order."""
    evaluation: Literal["best", "last"] = "best"
    """Which of a trial's evaluations counts: the best by the first objective, or the last."""

    rules = (
        *(rule for task in TASKS for rule in _rules_of(task)),
        Rule("peft needs a type, and knows lora", lambda t: t.peft is None or t.peft.get("type") == "lora"),
        Rule(
            "peft adapts a pretrained model: give model.name",
            lambda t: t.peft is None or t.model.name is not None,
            "!has(self.peft) || has(self.model.name)",
        ),
        Rule(
            "model.tokenizer: image-classification has none",
            lambda t: t.task != "image-classification" or t.model.tokenizer is None,
            "self.task != 'image-classification' || !has(self.model.tokenizer)",
        ),
    )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What is computed at each evaluation."""
        return tuple(self.metrics or ()) or TASKS[self.task].default_metrics
