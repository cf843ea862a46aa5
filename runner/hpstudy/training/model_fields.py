"""Which fields a model's configuration has: its class keeps any other name as an attribute that nothing reads."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig, modeling_layers

from hpstudy.training.arguments import check_known

_CONSUMED = re.compile(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)""")
"""In a configuration's code: names that it makes other fields of, most of them those of older versions."""
_READ = re.compile(r"""(?<=config\.)[a-z]\w*|(?<=config, ["'])[a-z]\w*""")
"""In a model's code: fields that it reads, also where the configuration declares none."""
_COMMON = {
    *("model_type", "num_labels", "name_or_path", "attn_implementation", "experts_implementation"),
    *("gradient_checkpointing", "per_layer_config", "tie_word_embeddings", "torch_dtype"),
}
"""What every configuration takes, declared or not."""
_ROPE = {"rope_theta", "rope_scaling", "partial_rotary_factor"}
"""What goes into ``rope_parameters`` where a configuration has them."""
_OF_FILES = {
    *GenerationConfig().to_dict(),
    "_name_or_path",
    *("add_cross_attention", "finetuning_task", "is_decoder", "pruned_heads", "sep_token_id", "task_specific_params"),
    *("tie_encoder_decoder", "tokenizer_class", "torchscript", "use_bfloat16"),
    *("gradient_checkpointing", "n_ctx", "position_embedding_type", "tie_weights_", "transformers_version"),
}
"""What older versions wrote into configurations, settings of generation among it: it may stay in one that was copied
from the Hub."""
_OF_FILES_BY_TYPE = {
    "albert": "down_scale_factor gap_size layers_to_keep net_structure_type num_memory_blocks",
    "bart": "add_bias_logits add_final_layer_norm classif_dropout extra_pos_embeddings force_bos_token_to_be_generated"
    " normalize_before normalize_embedding static_position_embeddings",
    "bert": "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head"
    " pooler_type",
    "distilbert": "output_past",
    "gpt2": "_num_labels",
    "qwen2": "use_mrope",
    "roberta": "output_past",
    "swin": "path_norm",
    "t5": "n_positions output_past",
    "xlm-roberta": "output_past",
}
"""What configurations of one type have on the Hub besides: bert-base-chinese, albert-base-v2, bart-large, t5-small and
their like. No code reads it."""


def check_written(given: Mapping[str, Any], config: PreTrainedConfig, field: str) -> None:
    """Check that a configuration has the fields that it was made from, and so have the configurations in it.

    Raises:
        InvalidStudyError: it has not, with the nearest one.
    """
    kind = type(config)
    of_files = _OF_FILES.union(_OF_FILES_BY_TYPE.get(kind.model_type, "").split())
    check_known(given, [*fields_of(kind), *(of_files & given.keys())], {}, field, f"no field of {kind.__name__}")
    for name, value in given.items():
        part = getattr(config, name, None)
        if isinstance(value, dict) and isinstance(part, PreTrainedConfig):
            check_written(value, part, f"{field}.{name}")


def fields_of(kind: type[PreTrainedConfig]) -> list[str]:
    """Names of the fields that configurations of the class have, or that its code or its model's takes besides."""
    names = {field.name for field in dataclasses.fields(kind)} | {*kind.attribute_map} | _COMMON
    names |= {*inspect.signature(kind).parameters} - {"args", "kwargs"}  # of one with an __init__ of its own
    for each in kind.__mro__[: kind.__mro__.index(PreTrainedConfig)]:
        names |= {name for name, value in vars(each).items() if isinstance(value, property)}
        names |= {*_CONSUMED.findall(_code(each.__module__))}
    parts: set[str] = set()
    try:
        default = kind()
    except (TypeError, ValueError, StrictDataclassError):  # some must be given something
        pass
    else:
        names |= {*default.to_dict()}
        for part in vars(default).values():
            if isinstance(part, PreTrainedConfig):
                parts |= {*part.to_dict(), *part.attribute_map}
    if "rope_parameters" in names:
        names |= _ROPE
    # A composite model's code reads the fields of its parts, too: there they have to be set.
    names |= _read(kind) - parts
    return sorted(name for name in names if not name.startswith("_"))


def _read(kind: type[PreTrainedConfig]) -> set[str]:
    """Names that the code of the class's models reads."""
    code = _code(kind.__module__.replace(".configuration_", ".modeling_"))
    if "GenericFor" in code:  # heads that many models share
        code += _code(modeling_layers.__name__)
    return {name for name in _READ.findall(code) if not callable(getattr(kind, name, None))}


def _code(module: str) -> str:
    try:
        return inspect.getsource(importlib.import_module(module))
    except (ImportError, OSError, TypeError):  # there is none
        return ""
