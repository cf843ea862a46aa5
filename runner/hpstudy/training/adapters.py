"""Adapters (PEFT): few weights trained beside a pretrained model's own, which stay as they are."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import peft
from transformers import PreTrainedModel

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.arguments import check_known, typed_by
from hpstudy.training.tasks.base import Task

_OURS = {
    "task_type": "it follows from the task",
    "peft_type": "it is peft.type",
    "inference_mode": "adapters are trained here",
    "base_model_name_or_path": "it is model.name",
}
_CONFIGS: Mapping[str, Any] = {"lora": peft.LoraConfig}


class Adapter:
    """The adapter that the study names.

    Args:
        fields: ``type`` and fields of its configuration, by peft's own names.

    Raises:
        InvalidStudyError: a name that the configuration does not have, or a value of another type.
    """

    def __init__(self, fields: Mapping[str, Any], task: Task) -> None:
        self._task = task
        self._config = _CONFIGS[fields["type"]]
        given = {name: value for name, value in fields.items() if name != "type"}
        self.check_names(given, "peft")
        self._fixed = self.typed(given, "peft")

    def check_names(self, names: Iterable[str], field: str) -> None:
        """Check that each is a field of the configuration that is free to set."""
        known = [each.name for each in dataclasses.fields(self._config)]
        check_known(names, known, _OURS, field, f"no field of {self._config.__name__}")

    def typed(self, fields: Mapping[str, Any], field: str) -> dict[str, Any]:
        """The fields with the types that the configuration declares."""
        return typed_by(typing.get_type_hints(self._config), fields, field)

    def wrap(self, model: PreTrainedModel, fields: Mapping[str, Any], base: str | None, missing: Iterable[str]) -> Any:
        """The model with a new adapter. Beside its weights train the head's, and those that the checkpoint lacks: they
        were initialised for this trial alone, and are saved with the adapter, or it would not be what was evaluated.

        Args:
            fields: of this trial.
            base: the pretrained model, noted in what is saved.
            missing: names of weights that the checkpoint lacks.
        """
        given = self._fixed | self.typed(fields, "hyperparameters")
        model.name_or_path = base
        prefix = f"{model.base_model_prefix}."
        heads = {name.rpartition(".")[0] if name.startswith(prefix) else name.partition(".")[0] for name in missing}
        if self._task.has_head:
            children = {name.partition(".")[0] for name, _ in model.named_parameters()}
            heads |= children - {model.base_model_prefix}
        given.setdefault("modules_to_save", sorted(heads) or None)
        try:
            return peft.get_peft_model(model, self._config(task_type=self._task.peft_task, **given))
        except (ValueError, TypeError, KeyError) as error:
            text = str(error).strip().partition("\n")[0]
            raise InvalidStudyError(reasons.INVALID_MODEL, f"peft: {text}") from None
