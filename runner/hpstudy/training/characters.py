"""A tokenizer of single characters, made from the training data: nothing to download, right for Chinese."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerFast

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def character_tokenizer(
    texts: Iterable[str], vocabulary_size: int, *, segments: bool = False
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the most frequent characters, in BERT's layout: [CLS] text [SEP].

    Args:
        vocabulary_size: entries, the five special tokens among them.
        segments: tell the first text of a pair from the second (``token_type_ids``); not every model takes that.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    trainer = WordLevelTrainer(vocab_size=vocabulary_size, special_tokens=list(_SPECIAL.values()), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    tokenizer.decoder = decoders.Fuse()
    inputs = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    ends = {"bos_token": cls, "eos_token": sep}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **_SPECIAL, **ends)
