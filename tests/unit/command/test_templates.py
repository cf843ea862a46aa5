"""What a command's templates become, and which are refused before anything starts."""

from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import check_algorithms
from hpstudy.space.templates import as_texts, fill, variable
from tests.support.builders import spec

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-6, "high": 1, "log": True},
    "optim": {"type": "categorical", "choices": ["adam", "sgd"]},
    "momentum": {"type": "float", "low": 0, "high": 1, "when": {"optim": ["sgd"]}},
}


def check(*argv: str, space: dict[str, Any] | None = None, **command: Any) -> None:
    fields = {"searchSpace": space or {"parameters": SPACE}, "trial": {"command": {"argv": list(argv)} | command}}
    check_algorithms(spec(**fields))


def test_values_are_written_so_that_they_read_back_as_they_were() -> None:
    parameters = {
        "lr": 1e-06,
        "tenth": 0.1,
        "n": 3,
        "on": True,
        "off": False,
        "none": None,
        "text": 'a "b"  $HOME\n价格',
        "sizes": [8, 16],
        "optimizer": {"name": "sgd", "lr": 0.5},
    }
    assert as_texts(parameters) == {
        "lr": "1e-06",
        "tenth": "0.1",
        "n": "3",
        "on": "true",
        "off": "false",
        "none": "null",
        "text": 'a "b"  $HOME\n价格',
        "sizes": "[8, 16]",
        "optimizer.name": "sgd",
        "optimizer.lr": "0.5",
    }


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("--lr={{ learning_rate }}", "--lr=0.1"),
        ("{{learning_rate}}/{{  trial.number }}", "0.1/7"),
        ("{{ strange }}", "{{ learning_rate }}"),  # a value is never read as a template
        ('{"lr": {{ learning_rate }}}', '{"lr": 0.1}'),
        ("{ not } a %s $template", "{ not } a %s $template"),
        ("--momentum={{ momentum }}", None),
        ("{{ learning_rate }}{{ momentum }}", None),
    ],
)
def test_templates_are_filled_and_what_names_an_absent_parameter_is_left_out(text: str, filled: str | None) -> None:
    values = {"learning_rate": "0.1", "trial.number": "7", "strange": "{{ learning_rate }}"}
    assert fill(text, values) == filled


def test_variables_are_named_after_the_parameters() -> None:
    assert variable("learning_rate") == "HPSTUDY_PARAM_LEARNING_RATE"
    assert variable("model.hidden-size") == "HPSTUDY_PARAM_MODEL_HIDDEN_SIZE"


def test_what_names_a_parameter_or_the_trial_is_accepted() -> None:
    argv = ["run", "--lr={{ learning_rate }}", "{{momentum}}", "{{ trial.output_dir }}/{{ trial.number }}"]
    check(*argv, env={"OPTIM": "{{ optim }}"})
    nested = {"ray": {"optimizer": {"lr": {"uniform": [0, 1]}}}}
    check("run", "{{ optimizer.lr }}", space=nested)
    check("run", "{{ only_the_function_knows }}", space={"python": "somewhere:space"})


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("{{ learning_rat }}", r"argv\[1\]: 'learning_rat' is no hyperparameter .*; did you mean learning_rate\?"),
        ("{{ trial.numbre }}", "did you mean trial.number"),
        ("{{ quite_another }}", "there are learning_rate, optim, momentum, trial.number"),
        ("{{ learning_rate", "a template is {{ NAME }} and nothing else"),
        ("{{ }}", "a template is {{ NAME }} and nothing else"),
        ("{{ learning_rate | round }}", "'learning_rate | round' is no hyperparameter"),
    ],
)
def test_what_names_nothing_is_refused_with_the_nearest_name(argument: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint) as caught:
        check("run", argument)
    assert caught.value.reason == "InvalidCommand"
    with pytest.raises(InvalidStudyError, match=r"trial\.command\.env\.LR: "):
        check("run", env={"LR": argument})


@pytest.mark.parametrize(
    ("names", "complaint"),
    [(("a.b", "a_b"), "a.b and a_b would both be the variable HPSTUDY_PARAM_A_B"), (("trial.x",), "rename it")],
)
def test_parameters_that_a_program_could_not_tell_apart_are_refused(names: tuple[str, ...], complaint: str) -> None:
    space = {"parameters": {name: {"type": "float", "low": 0, "high": 1} for name in names}}
    with pytest.raises(InvalidStudyError, match=complaint):
        check("run", space=space)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"argv": []}, "argv"),
        ({"argv": [""]}, "argv needs a program first"),
        ({"argv": ["a\0b"]}, "cannot hold a NUL"),
        ({"argv": ["run"], "env": {"HPSTUDY_TRIAL": "1"}}, "which are ours"),
        ({"argv": ["run"], "env": {"A-B": "1"}}, "env must have names of letters"),
        ({"argv": ["run"], "metrics": {}}, "exactly one of file, pattern"),
        ({"argv": ["run"], "metrics": {"file": "/metrics"}}, "below the trial's output folder"),
        ({"argv": ["run"], "metrics": {"file": "a/../../b"}}, "below the trial's output folder"),
        ({"argv": ["run"], "metrics": {"pattern": "loss=(.*)"}}, "with the groups"),
        ({"argv": ["run"], "metrics": {"pattern": "(?P<name>x)"}}, "with the groups"),
        ({"argv": ["run"], "metrics": {"pattern": "(?P<loss>x"}}, "must be a regular expression"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint):
        spec(trial={"command": fields})


@pytest.mark.parametrize("workers", [{"processesPerNode": 2}, {"isolation": "inline"}])
def test_a_command_is_one_process_a_node(workers: dict[str, Any]) -> None:
    spec(trial={"command": {"argv": ["run"]}}, workers={"processesPerNode": 1})
    with pytest.raises(InvalidStudyError, match="command"):
        spec(trial={"command": {"argv": ["run"]}}, workers=workers)
