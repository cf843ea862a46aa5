"""Language modelling: the next token (causal), or tokens that were hidden (masked)."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import DEFAULT_MLM_PROBABILITY
from hpstudy.training.metrics import language_metrics
from hpstudy.training.splits import SPLIT_SEED, Identity, Splits
from hpstudy.training.tasks.base import Encoded, Loss, ProcessorSource, Task
from hpstudy.training.tasks.tokens import (
    IGNORED,
    TextCollator,
    limit_length,
    next_token_loss,
    token_loss,
)

_TEXT = "text"


class _LanguageModeling(Task):
    """What both share: texts in a row, cut into blocks of maxLength tokens."""

    has_head = False

    def identify(self, rows: Dataset) -> Identity:
        if any(not isinstance(text, str) for text in rows[_TEXT]):
            raise InvalidStudyError(reasons.INVALID_DATASET, "dataset: the column for text must hold text")
        return Identity([text.strip() or None for text in rows[_TEXT]])

    def load_processor(self, source: ProcessorSource, train: Dataset) -> PreTrainedTokenizerBase:
        return source.tokenizer(lambda: train[_TEXT])

    def preprocess_logits(self, logits: Any, labels: Tensor) -> Tensor:
        """For each row of the batch the sums of ``language_metrics``: the logits themselves are a vocabulary's worth of
        numbers for every token."""
        rows = zip(super().preprocess_logits(logits, labels), labels, strict=True)
        return torch.stack([self._sums(*row) for row in rows])

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        return language_metrics(self._spec.metric_names, prediction.predictions)

    def _sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()
        loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        hits = (logits.argmax(dim=-1) == labels).sum()
        return torch.stack([loss, hits.to(loss.dtype), labels.ne(IGNORED).sum().to(loss.dtype)])

    def _blocks(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, length: int, what: str) -> list[list[int]]:
        """The texts one after the other, as in Transformers' own run_clm and run_mlm; the last block may be shorter."""
        encoded = tokenizer(list(rows[_TEXT]), truncation=False, verbose=False)["input_ids"]
        end = tokenizer.eos_token_id
        # Tokenizers of causal models put nothing between texts, and a model is to learn where they end.
        texts = (
            ids if end is None or ids[-1:] == [end] or self._delimited(ids, tokenizer) else [*ids, end]
            for ids in encoded
        )
        tokens = list(chain.from_iterable(texts))
        blocks = [tokens[start : start + length] for start in range(0, len(tokens), length)]
        blocks = [block for block in blocks if len(block) > 1]
        if not blocks:
            raise InvalidStudyError(reasons.INVALID_DATASET, f"dataset: {what} has no text")
        return blocks

    def _delimited(self, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
        return bool(ids) and ids[-1] == tokenizer.sep_token_id

    def _datasets(
        self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> Iterator[Dataset | None]:
        length = limit_length(self._spec, tokenizer, config)
        named = (
            (splits.train, "the training data"),
            (splits.validation, "the validation data"),
            (splits.test, "the test data"),
        )
        for rows, what in named:
            if rows is None:
                yield None
                continue
            blocks = self._blocks(rows, tokenizer, length, what)
            yield Dataset.from_dict({"input_ids": blocks, "attention_mask": [[1] * len(block) for block in blocks]})


class CausalLanguageModeling(_LanguageModeling):
    """The next token."""

    auto_model = AutoModelForCausalLM
    peft_task = "CAUSAL_LM"

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        if getattr(config, "output_router_logits", False):
            raise InvalidStudyError(
                reasons.INVALID_MODEL,
                "model: the auxiliary loss of its router is not supported; set output_router_logits to false",
            )
        train, validation, test = self._datasets(splits, tokenizer, config)
        assert train is not None
        assert validation is not None
        # BERT and its like see what comes next, unless they are told to be decoders.
        fields = {"is_decoder": True} if getattr(config, "is_decoder", None) is False else {}
        collate = TextCollator(tokenizer, labels=(), finish=_with_next_tokens)
        return Encoded(train, validation, test, collate, fields=fields)

    def loss(self, smoothing: float) -> Loss:
        return next_token_loss(smoothing)

    def _sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super()._sums(logits[:-1], labels[1:])


class MaskedLanguageModeling(_LanguageModeling):
    """Hidden tokens: others in every epoch of training, always the same of the data for evaluation."""

    auto_model = AutoModelForMaskedLM

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        if tokenizer.mask_token is None:
            raise InvalidStudyError(
                reasons.INVALID_MODEL, "model: its tokenizer has no mask token; give model.tokenizer one that has"
            )
        share = self._spec.dataset.mlm_probability or DEFAULT_MLM_PROBABILITY
        mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)
        fixed = DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)
        fixed.generator = torch.Generator().manual_seed(SPLIT_SEED)

        def hide(rows: Dataset | None) -> Dataset | None:
            if rows is None:
                return None
            columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
            for row in rows:
                ids, labels = fixed.torch_mask_tokens(torch.tensor([row["input_ids"]]))
                columns["input_ids"].append(ids[0].tolist())
                columns["attention_mask"].append(row["attention_mask"])
                columns["labels"].append(labels[0].tolist())
            return Dataset.from_dict(columns)

        def masked(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if "labels" not in batch:
                batch["input_ids"], batch["labels"] = mask.torch_mask_tokens(batch["input_ids"])
            return batch

        train, validation, test = self._datasets(splits, tokenizer, config)
        hidden = hide(validation)
        assert train is not None
        assert hidden is not None
        return Encoded(train, hidden, hide(test), TextCollator(tokenizer, finish=masked))

    def loss(self, smoothing: float) -> Loss:
        return token_loss(smoothing)


def _with_next_tokens(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    # The first token is nobody's next one. The Trainer, which counts labels, knows that of some models only.
    labels[:, 0] = IGNORED
    return batch | {"labels": labels}
