"""What a template may not say is refused with what to do instead; everything else reaches the pod."""

from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy_operator.builders import check_template
from tests.unit.operator.objects import study

PROGRAM = {"trial": {"command": {"argv": ["run"]}}}
URL = {"name": "HPSTUDY_STORAGE_URL", "value": "mine"}


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker"}], **spec}}


def containers(*found: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(found)}}


@pytest.mark.parametrize("form", [{}, PROGRAM])
@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (pod(restartPolicy="Always"), "restartPolicy 'Always': remove it; the Job"),
        (pod(restartPolicy="OnFailure"), "restartPolicy 'OnFailure': remove it"),
        (pod(subdomain="mine"), "subdomain: remove it"),
        (pod(hostname="mine"), "hostname: remove it"),
        (containers({"name": "worker", "command": ["sh"]}), "command of container 'worker': remove it; this container"),
        (containers({"name": "trainer", "args": ["-c"]}), "args of container 'trainer': remove it"),
        (containers({"command": ["sh"]}), "command of container 'worker': remove it"),
        (
            containers({"name": "worker", "env": [URL]}),
            "HPSTUDY_STORAGE_URL of container 'worker': remove it; a study's",
        ),
        ({"metadata": {"labels": {"hpstudy.io/group": "7"}}}, "remove hpstudy.io/group; the operator finds the pods"),
        ({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}, "remove app.kubernetes.io/managed-by"),
    ],
)
def test_what_would_be_overwritten_is_refused(form: dict[str, Any], template: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=rf"^workers\.template: .*{complaint}") as refused:
        check_template(study(workers={"template": template}, **form))
    assert refused.value.reason == "InvalidTemplate"


def test_in_the_pod_of_a_program_the_workers_own_container_is_ours_too() -> None:
    for field, complaint in (({"command": ["sh"]}, "command of container 'hpstudy'"), ({"env": [URL]}, "STORAGE_URL")):
        with pytest.raises(InvalidStudyError, match=complaint):
            check_template(
                study(workers={"template": containers({"name": "hpstudy", **field}, {"name": "worker"})}, **PROGRAM)
            )


@pytest.mark.parametrize("form", [{}, PROGRAM])
def test_everything_else_is_taken(form: dict[str, Any]) -> None:
    template = containers(
        {"name": "worker", "env": [{"name": "A"}]}, {"name": "log", "command": ["tail"], "args": ["-f"]}
    )
    template["spec"]["restartPolicy"] = "Never"
    template["metadata"] = {"labels": {"team": "nlp"}}
    check_template(study(workers={"template": template}, **form))
