"""Tasks by name."""

from collections.abc import Mapping

from hpstudy.api.transformers import TransformersTrial
from hpstudy.training.tasks.base import Task
from hpstudy.training.tasks.image import ImageClassification
from hpstudy.training.tasks.language import CausalLanguageModeling, MaskedLanguageModeling
from hpstudy.training.tasks.question_answering import QuestionAnswering
from hpstudy.training.tasks.text import Regression, TextClassification
from hpstudy.training.tasks.token import TokenClassification

_TASKS: Mapping[str, type[Task]] = {
    "text-classification": TextClassification,
    "regression": Regression,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "causal-language-modeling": CausalLanguageModeling,
    "masked-language-modeling": MaskedLanguageModeling,
    "image-classification": ImageClassification,
}


def make_task(spec: TransformersTrial) -> Task:
    """The task that the study names."""
    return _TASKS[spec.task](spec)
