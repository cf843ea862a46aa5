"""HPStudy: hyperparameter studies of PyTorch and Hugging Face training."""

from hpstudy._version import __version__

__all__ = ["__version__"]
