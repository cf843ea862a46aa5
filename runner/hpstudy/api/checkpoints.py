"""Where trials leave their checkpoints, and which of these stay."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.model import ApiModel, Rule


class Checkpoints(ApiModel):
    """What is kept of the models that trials train. With it, trials that lost their worker continue where they were."""

    keep: Literal["best", "none", "all"] = "best"
    """best keeps the checkpoint of the study's best trial, or those of its Pareto front; all keeps one of each trial
    that was not a failure; none keeps nothing beyond what trials need to continue."""
    volume: dict[str, Any] | None = None
    """Volume of the worker pods, as in their spec (persistentVolumeClaim: {claimName: checkpoints}); all pods of all
    groups must be able to write to it."""
    url: Annotated[str, Field(min_length=4, max_length=2048, pattern=r"^[a-z][a-z0-9]*://.*$")] | None = None
    """s3://bucket/folder, gs://bucket/folder or file:///folder. Credentials come from the pods' environment."""

    rules = (
        Rule(
            "checkpoints takes volume or url, not both",
            lambda c: c.volume is None or c.url is None,
            "!(has(self.volume) && has(self.url))",
        ),
        # The status shows the URL to whoever may read the study.
        Rule(
            "checkpoints.url must hold no credentials: set them in the environment of workers.template",
            lambda c: c.url is None or "@" not in urlsplit(c.url).netloc,
            "!has(self.url) || !self.url.matches('^[a-z0-9]+://[^/]*@')",
        ),
        # What a volume is made of the schema leaves open, and CEL does not see.
        Rule(
            "checkpoints.volume must be one kind of volume, such as persistentVolumeClaim: {claimName: NAME}",
            lambda c: c.volume is None or (len(c.volume) == 1 and all(isinstance(v, dict) for v in c.volume.values())),
        ),
        Rule(
            "checkpoints.volume: an emptyDir ends with its pod; take a volume that outlives it",
            lambda c: c.volume is None or "emptyDir" not in c.volume,
        ),
    )


def check_place(checkpoints: Checkpoints | None) -> None:
    """Check that the pods of a cluster have a place for checkpoints; on one machine the output folder is one.

    Raises:
        InvalidStudyError: none is named, or one that ends with its process.
    """
    if checkpoints is None:
        return
    if checkpoints.volume is None and checkpoints.url is None:
        raise InvalidStudyError(
            reasons.INVALID_CHECKPOINTS,
            "checkpoints: name the place, volume (persistentVolumeClaim: {claimName: NAME}) or url (s3://bucket/folder)",
        )
    if checkpoints.url is not None and urlsplit(checkpoints.url).scheme == "memory":
        raise InvalidStudyError(
            reasons.INVALID_CHECKPOINTS, "checkpoints.url: memory:// ends with its process; take a volume or s3://"
        )
