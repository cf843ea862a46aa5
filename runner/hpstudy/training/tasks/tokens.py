"""What the tasks on text share: how long a text may be, what a model takes of an encoding, padding, losses."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.tasks import TASKS
from hpstudy.api.transformers import TransformersTrial

IGNORED = -100
"""Label of a token that no loss and no metric counts, as everywhere in Transformers."""
_UNLIMITED = 1_000_000
"""Tokenizers without a limit of their own say a number far above."""
_POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Models that count positions from the padding token's index on, and so have fewer than their configuration says."""


def limit_length(spec: TransformersTrial, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    """Tokens of a text at most: what the user says, else the task's default, where the model has as many positions.

    Raises:
        InvalidStudyError: the user asks for more than the model has.
    """
    most = int(min(tokenizer.model_max_length, _UNLIMITED))
    positions = getattr(config, "max_position_embeddings", None)
    rotary = any(hasattr(config, name) for name in ("rope_parameters", "rope_theta", "rope_scaling"))
    if isinstance(positions, int) and positions > 0 and not rotary:  # rotary ones are no table that could be too short
        if config.model_type in _POSITIONS_AFTER_PADDING:
            positions -= (config.pad_token_id or 0) + 1
        most = min(most, positions)
    asked = spec.dataset.max_length
    if asked is None:
        return min(most, TASKS[spec.task].max_length)
    if asked > most:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset.maxLength: {asked}, but the model takes texts of {most} tokens at most; set it to {most} or less",
        )
    return asked


def has_segments(config: PreTrainedConfig) -> bool:
    """Whether the model has embeddings to tell two texts apart (models like GPT-2 would take their types for words)."""
    return (getattr(config, "type_vocab_size", None) or 0) > 1


def inputs_of(encoded: Mapping[str, Any], config: PreTrainedConfig) -> dict[str, Any]:
    """The columns of an encoding that the model takes."""
    names = ["input_ids", "attention_mask"]
    if has_segments(config):
        names.append("token_type_ids")
    return {name: encoded[name] for name in names if name in encoded}


class TextCollator:
    """Pads a batch to its longest row, labels of tokens with IGNORED; other columns of the rows stay behind.

    Args:
        labels: columns of labels.
        finish: changes the padded batch (masks it, say).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        labels: tuple[str, ...] = ("labels",),
        label_type: torch.dtype = torch.int64,
        finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._labels = labels
        self._label_type = label_type
        self._finish = finish

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in rows[0]]
        batch = dict(self._tokenizer.pad([{name: row[name] for name in names} for row in rows], return_tensors="pt"))
        for name in self._labels:
            if name in rows[0]:
                batch[name] = self._stack([row[name] for row in rows], batch["input_ids"].shape[1])
        return self._finish(batch) if self._finish is not None else batch

    def _stack(self, labels: list[Any], length: int) -> Tensor:
        if isinstance(labels[0], list):
            left = self._tokenizer.padding_side == "left"
            labels = [
                [IGNORED] * (length - len(row)) + row if left else row + [IGNORED] * (length - len(row))
                for row in labels
            ]
        return torch.tensor(labels, dtype=self._label_type)


def token_loss(smoothing: float) -> Callable[..., Tensor]:
    """Cross-entropy over the labelled tokens of a step: of all its micro-batches and ranks together, whose count the
    Trainer gives. (Many models accept the count and divide by their own micro-batch's, so that short texts weigh more,
    and under DDP the Trainer multiplies their loss by the number of ranks.)"""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        total = functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=smoothing,
        )
        count = num_items_in_batch if num_items_in_batch is not None else labels.ne(IGNORED).sum()
        return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))

    return loss


def next_token_loss(smoothing: float) -> Callable[..., Tensor]:
    """The same of the token that follows each; labels are not shifted, and that of the first is IGNORED."""
    loss = token_loss(smoothing)

    def shifted(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        return loss((logits[:, :-1],), labels[:, 1:], num_items_in_batch)

    return shifted
