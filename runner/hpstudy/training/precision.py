"""In what precision torch multiplies float32, read and put back exactly.

Since 2.9 torch has nine settings: one for all, one for each of two backends, one for each operation of these. An
operation that is "none" follows its backend and that the first, and each reads as what it follows. The older names
(``allow_tf32``, ``set_float32_matmul_precision``) write some of the nine, keep a value of their own besides, and raise
when they are read while the two disagree. transformers writes the first setting, for ``tf32`` and ``torch_compile``.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch

_FIRST = ("generic", "all")
_ABOVE = (_FIRST, ("cuda", "all"), ("mkldnn", "all"))
_MATMULS = (("cuda", "matmul"), ("mkldnn", "matmul"))
_OF_CUDNN = (("cuda", "conv"), ("cuda", "rnn"))
_OPERATIONS = (*_MATMULS, *_OF_CUDNN, ("mkldnn", "conv"), ("mkldnn", "rnn"))
_INITIAL = "initial"
"""How cuDNN's begin: TF32, until one above says otherwise. Once written, nothing makes them so again."""


@dataclass(frozen=True)
class Precision:
    """All that torch keeps of it.

    Attributes:
        settings: the nine, each as it was written itself; none before torch 2.9.
        matmul: what ``torch.set_float32_matmul_precision`` and ``cuda.matmul.allow_tf32`` wrote last.
        cudnn: what ``cudnn.allow_tf32`` did.
    """

    settings: Mapping[tuple[str, str], str]
    matmul: str
    cudnn: bool

    @classmethod
    def take(cls) -> Self:
        """Read it. For a moment the settings above are unset, so that what is below them reads as itself."""
        if not hasattr(torch._C, "_set_fp32_precision_setter"):
            return cls({}, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        settings = {}
        for each in _ABOVE:
            settings[each] = _get(each)
            _set(each, "none")
        settings |= {each: _get(each) for each in _OPERATIONS}
        _set(_FIRST, "ieee")
        settings |= {each: _INITIAL for each in _OF_CUDNN if settings[each] == "tf32" and _get(each) == "ieee"}
        _set(_FIRST, "none")
        # As no older name's value disagrees with.
        for each in _MATMULS:
            _set(each, "none")
        for each in _OF_CUDNN:
            if settings[each] != _INITIAL:
                _set(each, "tf32")
        taken = cls(settings, torch.get_float32_matmul_precision(), _cudnn_allows())
        taken._write([each for each in settings if settings[each] != _INITIAL])
        return taken

    def restore(self) -> None:
        """Put it back, and write nothing that is so already."""
        found = type(self).take()
        if found.matmul != self.matmul:
            torch.set_float32_matmul_precision(self.matmul)
        if found.cudnn != self.cudnn:
            torch.backends.cudnn.allow_tf32 = self.cudnn
        if found != self:  # the older names write settings, too: those come last
            found = type(self).take()
            self._write([each for each in self.settings if self.settings[each] != found.settings[each]])
        _forget_transformers()

    def _write(self, which: list[tuple[str, str]]) -> None:
        for each in which:
            value = self.settings[each]
            _set(each, "tf32" if value == _INITIAL else value)


def _get(setting: tuple[str, str]) -> str:
    return torch._C._get_fp32_precision_getter(*setting)


def _set(setting: tuple[str, str], value: str) -> None:
    # Not by torch.backends: what looks like the setting of mkldnn writes the first one (torch 2.13).
    torch._C._set_fp32_precision_setter(*setting, value)


def _cudnn_allows() -> bool:
    """The older flag, while both settings of cuDNN are TF32."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # it is not what they are
        return False


def _forget_transformers() -> None:
    """It remembers that it has set a precision once, and would not set it for another trial."""
    module = sys.modules.get("transformers.utils.import_utils")
    forget = getattr(getattr(module, "enable_tf32", None), "cache_clear", None)
    if forget is not None:
        forget()
