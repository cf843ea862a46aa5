"""Models: loaded once, made anew for each trial."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import ModelSource
from hpstudy.training.adapters import Adapter
from hpstudy.training.arguments import check_known
from hpstudy.training.characters import character_tokenizer
from hpstudy.training.model_fields import check_written, fields_of
from hpstudy.training.tasks.base import Encoded, Task
from hpstudy.training.tasks.tokens import has_segments

_DEFAULT_VOCABULARY = 2000
_UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)
"""What Transformers raises for a model, tokenizer or configuration that cannot be used."""


class Models:
    """The models of a study; also where its tokenizer or image processor comes from.

    Args:
        folder: where relative paths start.
        adapter: what is trained instead of all weights.
    """

    def __init__(self, source: ModelSource, task: Task, folder: Path, adapter: Adapter | None) -> None:
        self._source = source
        self._task = task
        self._folder = folder
        self._adapter = adapter
        self._pretrained: PreTrainedModel | None = None
        self._state: Mapping[str, torch.Tensor] = {}
        self._missing: set[str] = set()
        self._fields: dict[str, Any] = {}
        self._processor: Any = None
        self._known: dict[str, set[str]] = {}

    @property
    def _name(self) -> str | None:
        return self._resolve(self._source.name)

    def _resolve(self, name: str | None) -> str | None:
        """A folder, where there is one of that name, else a name on the Hub."""
        path = self._folder / str(name)
        return str(path.resolve()) if name is not None and path.is_dir() else name

    def tokenizer(self, texts: Callable[[], Sequence[str]]) -> PreTrainedTokenizerBase:
        """The tokenizer that the user names, the model's own, or one of the characters in the texts."""
        name = self._resolve(self._source.tokenizer) or self._name
        if name is None:
            assert self._source.config is not None
            try:
                segments = has_segments(self._make_config({}))
            except _UNUSABLE as error:
                raise _invalid("model", error) from None
            size = self._source.config.get("vocab_size", _DEFAULT_VOCABULARY)
            return character_tokenizer(texts(), size, segments=segments)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except _UNUSABLE as error:
            raise _invalid("model" if self._source.tokenizer is None else "model.tokenizer", error) from None
        if tokenizer.pad_token is None:  # GPT's: what pads is masked, so that any token will do
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise InvalidStudyError(reasons.INVALID_MODEL, f"model: the tokenizer {name} has neither pad nor eos token")
        return tokenizer

    def image_processor(self) -> Any:
        """The model's own; of a model from scratch one that scales to its image_size, to values from -1 to 1."""
        try:
            if self._name is not None:
                return AutoImageProcessor.from_pretrained(self._name, backend="pil")
            config = self._make_config({})
            size = getattr(config, "image_size", 224)
            height, width = (size, size) if isinstance(size, int) else size
            middle = [0.5] * getattr(config, "num_channels", 3)
            return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=middle, image_std=middle)
        except _UNUSABLE as error:
            raise _invalid("model", error) from None

    def config(self, processor: Any) -> PreTrainedConfig:
        """The model's configuration, before it is fitted to the data; remembers the processor.

        Raises:
            InvalidStudyError: there is no such model or type of model.
        """
        self._processor = processor
        try:
            config = AutoConfig.from_pretrained(self._name) if self._name is not None else self._make_config({})
        except _UNUSABLE as error:
            raise _invalid("model", error) from None
        self._known[type(config).__name__] = {*fields_of(type(config))}
        if self._source.config is not None:
            check_written(self._source.config, config, "model.config")
        else:
            self._known[type(config).__name__] |= config.to_dict().keys()
        if isinstance(processor, PreTrainedTokenizerBase):
            size = config.get_text_config().vocab_size
            if len(processor) > size:
                raise InvalidStudyError(
                    reasons.INVALID_MODEL,
                    f"model: its tokenizer has {len(processor)} tokens, and vocab_size is {size}; raise vocab_size",
                )
        return config

    def check_fields(self, names: Iterable[str], field: str, types: Iterable[str] = ()) -> None:
        """Check that each is a field of the model's configuration.

        Args:
            types: the types of models that are searched (``model.model_type``), whose fields may be set from now on.

        Raises:
            InvalidStudyError: it is none, with the nearest one.
        """
        for kind in (CONFIG_MAPPING[each] for each in types if each in CONFIG_MAPPING):
            self._known[kind.__name__] = {*fields_of(kind)}
        refused = {"model_type": "the pretrained model has its own"} if self._name is not None else {}
        known = set().union(*self._known.values())
        check_known(names, known, refused, field, f"no field of {' or '.join(self._known)}")

    def load(self, data: Encoded) -> None:
        """Load the weights, fit the head to the data, and check that a model can be made.

        Raises:
            InvalidStudyError: it cannot.
        """
        self._fields = dict(data.fields)
        if data.labels:
            names = dict(enumerate(data.labels))
            self._fields |= {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}
        if self._name is not None:
            self._load_pretrained(self._name)
        self.make({}, {}, on_meta=True)  # a configuration that no model takes is found here and not by each trial

    def _load_pretrained(self, name: str) -> None:
        try:
            self._pretrained, report = self._task.auto_model.from_pretrained(
                name,
                config=AutoConfig.from_pretrained(name, **self._fields),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except _UNUSABLE as error:
            raise _invalid("model", error) from None
        # What the checkpoint lacks, each trial initialises with its own seed.
        self._missing = {*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])}
        self._state = {key: value for key, value in self._pretrained.state_dict().items() if key not in self._missing}

    def make(
        self, fields: Mapping[str, Any], adapter_fields: Mapping[str, Any], *, on_meta: bool = False
    ) -> PreTrainedModel:
        """A model for one trial: the shared weights, what they lack initialised from torch's generator.

        Args:
            fields: of the model's configuration.
            adapter_fields: of the adapter's configuration.
            on_meta: without any weights, to see whether it can be made.
        """
        try:
            config = self._make_config(fields)
            with torch.device("meta" if on_meta else "cpu"):
                model = self._task.auto_model.from_config(config)
            if self._pretrained is not None and not on_meta:
                model.load_state_dict(self._state, strict=False)
        except _UNUSABLE as error:
            raise _invalid("model", error) from None
        if self._adapter is None:
            return model
        return self._adapter.wrap(model, adapter_fields, self._name, self._missing)

    def _make_config(self, fields: Mapping[str, Any]) -> PreTrainedConfig:
        if self._pretrained is not None:
            written = {**self._pretrained.config.to_dict(), **self._fields, **fields}
            return type(self._pretrained.config).from_dict(written)
        written = dict(self._source.config or {})
        if isinstance(self._processor, PreTrainedTokenizerBase):
            written.setdefault("vocab_size", len(self._processor))
            for token in ("pad_token_id", "bos_token_id", "eos_token_id"):
                written.setdefault(token, getattr(self._processor, token))
        written |= {**self._fields, **fields}
        aliases = {}
        if written["model_type"] in CONFIG_MAPPING:  # its get() knows only what was loaded already
            aliases = CONFIG_MAPPING[written["model_type"]].attribute_map
        # Of a field and another name for it the class takes the latter, whichever was searched.
        return AutoConfig.for_model(**{aliases.get(name, name): value for name, value in written.items()})


def _invalid(field: str, error: Exception) -> InvalidStudyError:
    text = str(error).strip().partition("\n")[0]
    return InvalidStudyError(reasons.INVALID_MODEL, f"{field}: {text or type(error).__name__}")
