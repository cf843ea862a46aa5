"""Fields of a model's configuration: those that exist are taken, whatever the type of model; others are refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.model_fields import check_written, fields_of
from tests.support.builders import spec
from tests.training.forms import BERT, TINY_BERT, prepared, run, task_fields, task_spec

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and Transformers are not ours to mend

# As configurations on the Hub have them, with other names that Transformers knows for some.
FIELDS = {
    "bert": "hidden_size num_hidden_layers hidden_dropout_prob classifier_dropout hidden_act gradient_checkpointing",
    "distilbert": "dim n_heads n_layers num_hidden_layers hidden_size seq_classif_dropout qa_dropout dropout",
    "roberta": "attention_probs_dropout_prob layer_norm_eps type_vocab_size classifier_dropout intermediate_size",
    "gpt2": "n_embd n_layer hidden_size num_attention_heads resid_pdrop summary_type classifier_dropout n_inner",
    "llama": "num_key_value_heads rope_theta rope_scaling rms_norm_eps head_dim attention_bias classifier_dropout",
    "qwen2": "sliding_window max_window_layers rope_theta head_dim use_sliding_window tie_word_embeddings",
    "t5": "d_model d_kv d_ff num_layers num_decoder_layers num_hidden_layers feed_forward_proj dropout_rate",
    "vit": "image_size patch_size num_channels qkv_bias hidden_size encoder_stride pooler_act",
    "deberta-v2": "position_buckets norm_rel_ebd share_att_key pos_att_type conv_kernel_size cls_dropout",
    "modernbert": "global_attn_every_n_layers local_attention classifier_pooling embedding_dropout global_rope_theta",
    "whisper": "encoder_layers decoder_ffn_dim num_mel_bins apply_spec_augment mask_time_prob use_weighted_layer_sum",
    "clip": "text_config vision_config projection_dim logit_scale_init_value",
    "electra": "embedding_size summary_last_dropout summary_activation",
    "swin": "depths embed_dim window_size drop_path_rate num_attention_heads",
    "mixtral": "num_local_experts num_experts_per_tok router_aux_loss_coef",
}
OF_ALL = "attn_implementation dtype torch_dtype problem_type num_labels id2label label2id output_attentions"


@pytest.mark.parametrize("model_type", FIELDS)
def test_fields_of_popular_models_are_known(model_type: str) -> None:
    known = {*fields_of(CONFIG_MAPPING[model_type])}
    assert {*FIELDS[model_type].split(), *OF_ALL.split()} - known == set()
    assert {*AutoConfig.for_model(model_type).to_dict()} - known <= {"_name_or_path"}


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("bert", "num_hiden_layers hidden_dropout dropout n_layer rope_theta to_dict temperature"),
        ("distilbert", "hidden_dropout_prob n_layer"),
        ("gpt2", "n_layers hidden_dropout_prob"),
        ("llama", "hidden_dropout_prob rope_thetas num_kv_heads"),
        ("vit", "image_sizes dropout"),
        ("clip", "num_hidden_layers hidden_size"),  # of its parts
    ],
)
def test_names_that_only_look_like_fields_are_not(model_type: str, names: str) -> None:
    assert not {*names.split()} & {*fields_of(CONFIG_MAPPING[model_type])}


class OwnConfig(PreTrainedConfig):
    model_type = "own"

    def __init__(self, width: int = 8, **kwargs: Any) -> None:
        self.width = width
        self.depth = kwargs.pop("layers", 2)
        super().__init__(**kwargs)


def test_a_configuration_of_the_users_own_has_what_its_code_takes() -> None:
    known = fields_of(OwnConfig)
    assert {"width", "depth", "layers", "num_labels"} <= {*known}
    assert "widths" not in known


def test_what_older_versions_wrote_into_every_configuration_may_stay() -> None:
    copied = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "gradient_checkpointing": False,
        "max_length": 20,
        "do_sample": False,
        "pad_token_id": 0,
        "task_specific_params": None,
        "transformers_version": "4.6.0.dev0",
        "_name_or_path": "bert",
        "use_cache": True,
    }
    check_written(copied, AutoConfig.for_model(**copied), "model.config")


# The fields of their files on the Hub that Transformers no longer has.
ON_THE_HUB = {
    "bert": {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"},  # -base-chinese
    "albert": {"down_scale_factor": 1, "gap_size": 0, "net_structure_type": 0, "num_memory_blocks": 0},  # -base-v2
    "bart": {"add_bias_logits": False, "classif_dropout": 0.1, "normalize_before": False},  # -large
    "t5": {"n_positions": 512, "output_past": True},  # -small
}


@pytest.mark.parametrize("model_type", ON_THE_HUB)
def test_so_may_what_they_wrote_into_those_of_one_type(model_type: str) -> None:
    copied = {"model_type": model_type} | ON_THE_HUB[model_type]
    check_written(copied, AutoConfig.for_model(**copied), "model.config")
    other = {"model_type": "gpt2"} | ON_THE_HUB[model_type]
    with pytest.raises(InvalidStudyError, match="no field of GPT2Config"):
        check_written(other, AutoConfig.for_model(**other), "model.config")


def test_and_the_configurations_in_it_are_checked_too() -> None:
    written = {"model_type": "clip", "text_config": {"num_hiden_layers": 2, "hidden_size": 8}, "projection_dim": 4}
    with pytest.raises(InvalidStudyError, match=r"model\.config\.text_config\.num_hiden_layers: .* num_hidden_layers"):
        check_written(written, AutoConfig.for_model(**written), "model.config")


REVIEWS = {"csv": "reviews.csv", "maxLength": 12}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"{'ab' if number % 2 else 'cd'} {number},{'up' if number % 2 else 'down'}" for number in range(40)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return tmp_path


def searched(name: str, **form: Any) -> Any:
    fields = task_fields("text-classification", REVIEWS, **form)
    return spec(**fields | {"searchSpace": {"parameters": {name: {"type": "int", "low": 1, "high": 4}}}})


@pytest.mark.parametrize(
    ("study", "complaint"),
    [
        (
            searched("model.num_hiden_layers"),
            "searchSpace.model.num_hiden_layers: no field of BertConfig; did you mean num_hidden_layers?",
        ),
        (
            task_spec("text-classification", REVIEWS, model={"config": BERT | {"hiden_size": 8}}),
            "model.config.hiden_size: no field of BertConfig; did you mean hidden_size?",
        ),
    ],
)
def test_a_misspelt_field_is_refused_before_the_first_trial(folder: Path, study: Any, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(study, folder)
    assert (refusal.value.reason, refusal.value.message) == ("UnknownParameter", complaint)


@pytest.mark.parametrize(
    "written",
    [
        BERT
        | {"position_embedding_type": "absolute", "gradient_checkpointing": False, "transformers_version": "4.6.0"},
        {"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 1, "n_ctx": 1024, "summary_type": "cls_index"},
        {"model_type": "distilbert", "dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 16, "tie_weights_": True},
    ],
    ids=lambda written: written["model_type"],
)
def test_a_configuration_from_the_hub_is_taken_with_what_older_versions_wrote(
    folder: Path, written: dict[str, Any]
) -> None:
    prepared(task_spec("text-classification", REVIEWS, model={"config": {"vocab_size": 40} | written}), folder)


def test_so_is_one_of_a_pretrained_model_but_none_that_it_brings(folder: Path) -> None:
    from transformers import AutoModel

    from hpstudy.training.characters import character_tokenizer

    config = AutoConfig.for_model(**TINY_BERT, pad_token_id=0, brought_along=3)
    AutoModel.from_config(config).save_pretrained(folder / "base")
    character_tokenizer(["abcd"], 40).save_pretrained(folder / "base")
    prepared(searched("model.brought_along", model={"name": "base"}), folder)
    for name, complaint in (("num_hiden_layers", "no field of BertConfig"), ("model_type", "has its own")):
        with pytest.raises(InvalidStudyError, match=complaint):
            prepared(searched(f"model.{name}", model={"name": "base"}), folder)


def test_a_function_that_gives_such_a_name_fails_its_trial(folder: Path) -> None:
    study = task_spec("text-classification", REVIEWS)
    with pytest.raises(InvalidStudyError, match=r"hyperparameters\.model\.hiden_size: no field of BertConfig"):
        run(prepared(study, folder), study, folder, **{"model.hiden_size": 8})


def test_a_function_may_give_the_type_of_model_with_its_fields(folder: Path) -> None:
    study = task_spec("text-classification", REVIEWS, arguments={"num_train_epochs": 1})
    given = {"model.model_type": "distilbert", "model.seq_classif_dropout": 0.5, "model.dim": 16, "model.n_heads": 2}
    metrics, _ = run(prepared(study, folder), study, folder, **given)
    assert "eval_loss" in metrics


def test_the_type_of_model_may_be_searched_with_the_fields_of_each(folder: Path) -> None:
    space = {
        "model.model_type": {"type": "categorical", "choices": ["bert", "distilbert"]},
        "model.seq_classif_dropout": {
            "type": "float",
            "low": 0,
            "high": 1,
            "when": {"model.model_type": ["distilbert"]},
        },
    }
    fields = task_fields("text-classification", REVIEWS, arguments={"num_train_epochs": 1})
    fields["trial"]["transformers"]["model"] = {"config": {"model_type": "bert", "vocab_size": 40}}
    study = spec(**fields | {"searchSpace": {"parameters": space}})
    form = prepared(study, folder)
    made = form._models.make({"model_type": "distilbert", "seq_classif_dropout": 0.5}, {}, on_meta=True)
    assert made.dropout.p == 0.5
    form._models.check_fields(["seq_classif_dropout"], "hyperparameters.model")


@pytest.mark.parametrize(("fixed", "name"), [("n_layers", "num_hidden_layers"), ("num_hidden_layers", "n_layers")])
def test_what_is_searched_counts_under_each_of_its_names(folder: Path, fixed: str, name: str) -> None:
    config = {"model_type": "distilbert", "dim": 16, "n_heads": 2, "hidden_dim": 16, "vocab_size": 40, fixed: 1}
    study = searched(f"model.{name}", model={"config": config})
    made = prepared(study, folder)._models.make({name: 3}, {}, on_meta=True)
    assert len(made.distilbert.transformer.layer) == 3
