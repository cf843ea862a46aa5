"""Reading a manifest: what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study, read_manifest
from tests.support.builders import manifest, study

MANIFEST = """
apiVersion: hpstudy.io/v1alpha1
kind: HPStudy
metadata: {name: numbers}
spec:
  objectives: [{metric: loss, direction: minimize}]
  searchSpace:
    parameters:
      lr: {type: float, low: 1e-6, high: 1E-4, log: true}
      wd: {type: categorical, choices: [1e-2, "1e-2", yes, null, 3]}
  trial: {function: "m:f"}
"""

TWO = [{"metric": metric, "direction": "minimize"} for metric in "ab"]
TRANSFORMERS = {"task": "text-classification", "model": {"name": "m"}, "dataset": {"csv": "c"}}


def with_parameter(**parameter: Any) -> dict[str, Any]:
    return manifest(searchSpace={"parameters": {"p": parameter}})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (manifest(budgt={}), "spec.budgt: unknown field"),
        (manifest(budget={"maxTrails": 3}), "spec.budget.maxTrails: unknown field"),
        (manifest() | {"spce": {}}, "manifest: unknown field spce"),
        (with_parameter(type="float", low=2, high=1), "spec.searchSpace.parameters.p: low must not exceed high"),
        (with_parameter(type="float", low=0, high=1, log=True), "p: log needs a low above 0"),
        (with_parameter(type="float", low=-1, high=1, log=True), "p: log needs a low above 0"),
        (with_parameter(type="float", low=0.1, high=1, log=True, step=0.1), "log and step cannot be combined"),
        (with_parameter(type="float", low=0, high=1, step=0), "step must be above 0"),
        (with_parameter(type="int", low=0.5, high=2), "an int parameter needs whole numbers"),
        (with_parameter(type="float", low=0), "float and int parameters need low and high"),
        (with_parameter(type="categorical"), "categorical parameters need choices"),
        (with_parameter(type="categorical", choices=[]), "p.choices: list should have at least 1 item"),
        (
            with_parameter(type="categorical", choices=[1, [1, 2]]),
            "p.choices.1: must be a text, a number, true, false or null, got [1, 2]",
        ),
        (with_parameter(type="categorical", choices=[1], low=0), "take no low, high, log or step"),
        (with_parameter(type="float", low="1e-6", high=1), "p.low: input should be a valid number, got '1e-6'"),
        (with_parameter(type="gaussian"), "p.type: input should be 'float', 'int' or 'categorical', got 'gaussian'"),
        (
            manifest(searchSpace={}),
            "searchSpace must have exactly one of parameters, optuna, ray, wandb, sigopt, python",
        ),
        (manifest(workers={"nodes": 2, "trialsPerPod": "auto"}), "trialsPerPod other than 1 needs nodes: 1"),
        (manifest(workers={"isolation": "inline", "trialsPerPod": 2}), "trialsPerPod other than 1 needs isolation"),
        (manifest(trial={"script": {"path": "a"}}, workers={"trialsPerPod": 2}), "is not for trial.script"),
        (manifest(trialTimeout="90"), "spec.trialTimeout: must be a duration such as 90s, 1h30m or 500ms, got '90'"),
        (manifest(trialTimeout=90), "spec.trialTimeout: must be a duration such as 90s, 1h30m or 500ms, got 90"),
        (
            manifest(trial={"command": {"argv": ["a", 1]}}),
            "spec.trial.command.argv.1: must be a text, in quotes, got 1",
        ),
        (manifest(trial={"script": "a.py"}), "spec.trial.script: must have fields (path, args), got 'a.py'"),
        (manifest(budget={"maxTrials": "5"}), "spec.budget.maxTrials: input should be a valid integer, got '5'"),
        (manifest(budget={"max_trials": 5}), "spec.budget.max_trials: unknown field; did you mean maxTrials?"),
        (
            manifest(budget={"trialTimeout": "3s"}),
            "spec.budget.trialTimeout: unknown field; it belongs beside budget, not below it",
        ),
        (
            manifest(budget={"n_trials": 5}),
            "spec.budget.n_trials: unknown field; there are maxTrials, maxFailedTrials, timeout, gpuHours",
        ),
        (manifest(trialTimeout="0m0s"), "spec.trialTimeout: must be longer than 0"),
        (manifest(objectives=[{"metric": "loss"}]), "spec.objectives.0.direction: required"),
        (manifest(objectives=[]), "spec.objectives: list should have at least 1 item"),
        (
            manifest(objectives=[{"metric": "a", "direction": "minimize"}] * 2),
            "each objective needs a metric of its own",
        ),
        (
            manifest(backend="hyperopt"),
            "spec.backend: input should be 'optuna', 'ray', 'wandb' or 'sigopt', got 'hyperopt'",
        ),
        (manifest(trial={}), "trial must have exactly one of transformers, function"),
        (manifest(searchSpace=None), "spec: searchSpace is required; only a trial.script may bring its own"),
        (manifest(trial={"script": {"path": "a.py"}}, workers={"isolation": "inline"}), "workers.isolation inline is"),
        (manifest(workers={"isolation": "pod"}), "workers.isolation: input should be 'process' or 'inline'"),
        (manifest(trial={"function": "not a function"}), "spec.trial.function: must be module:function, got"),
        (manifest(retries={"metric-missing": 1}), "retries.metric-missing: unknown field; did you mean metricMissing?"),
        (manifest(budget={"maxTrials": 0}), "spec.budget.maxTrials: input should be greater than or equal to 1, got 0"),
        (manifest(workers={"processesPerNode": "all"}), "spec.workers.processesPerNode: input should be"),
        (
            manifest(objectives=[{"metric": m, "direction": "minimize"} for m in ("f1", "eval_f1")]),
            "each objective needs a metric of its own",
        ),
        (
            manifest(objectives=TWO, scalarize={"weights": {"a": 1, "c": 1}}),
            "scalarize.weights needs each metric of the objectives, and no other",
        ),
        (manifest(objectives=TWO, scalarize={"weights": {"a": 0, "b": 0}}), "weights must be 0 or more, and one"),
        (manifest(objectives=TWO, scalarize={"weights": {"a": 1, "b": -1}}), "weights must be 0 or more, and one"),
        (manifest(scalarize={"weights": {"loss": 1}}), "weights: dictionary should have at least 2 items"),
        (manifest(objectives=TWO, pruner={"name": "NopPruner"}), "a pruner needs exactly one objective, or scalarize"),
        (manifest(objectives=TWO, stopWhen={}), "stopWhen needs exactly one objective, or scalarize"),
        (manifest(constraints=[{"metric": "latency"}]), "a constraint needs max or min"),
        (manifest(constraints=[{"metric": "latency", "min": 2, "max": 1}]), "min must not exceed max"),
        (
            manifest(trial={"transformers": TRANSFORMERS}, objectives=[{"metric": "test_f1", "direction": "maximize"}]),
            "metrics on test data (test_) are recorded, never optimised",
        ),
        (
            manifest(trial={"transformers": TRANSFORMERS}, constraints=[{"metric": "test_f1", "min": 0}]),
            "metrics on test data (test_) are recorded, never optimised",
        ),
        (manifest(name="Reviews"), "metadata.name: string should match pattern"),
        ({}, "apiVersion: required"),
        ([], "manifest: must have fields (apiVersion, kind, metadata, spec), got []"),
    ],
)
def test_what_cannot_run_is_refused_with_the_field_and_what_to_change(given: Any, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        parse_study(given)
    assert complaint in refusal.value.message


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        parse_study(manifest(backend="x", budget={"maxTrials": -1}, parallelism=0))
    assert len(refusal.value.message.splitlines()) == 3


def test_two_forms_of_a_trial_are_refused() -> None:
    with pytest.raises(InvalidStudyError, match="exactly one of transformers, function"):
        parse_study(manifest(trial={"function": "m:f", "transformers": TRANSFORMERS}))


def test_a_number_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(MANIFEST)
    parameters = read_manifest(path).spec.search_space.parameters
    assert parameters is not None
    assert (parameters["lr"].low, parameters["lr"].high) == (1e-6, 1e-4)
    assert parameters["wd"].choices == [0.01, "1e-2", True, None, 3]
    assert [type(choice) for choice in parameters["wd"].choices] == [float, str, bool, type(None), int]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "is not YAML"),
        ("", "it holds 0 objects"),
        (f"{MANIFEST}---\n{MANIFEST}", "it holds 2 objects"),
        ("spec:\n  backend: ray\n  budget: {}\n  backend: optuna\n", "the key backend is there twice(.|\\n)* line 4"),
        ("a: {b: 1, b: 1}", "the key b is there twice"),
        ("high: .inf", ".inf is no finite number(.|\\n)* line 1"),
        ("high: 1e400", "1e400 is no finite number"),
    ],
)
def test_a_file_that_is_no_single_manifest_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InvalidStudyError, match=complaint):
        read_manifest(path)


def test_keys_that_an_anchor_brings_are_not_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    trial = 'trial: {function: "m:f"}'
    assert trial in MANIFEST
    budget = "budget:\n    <<: {maxTrials: 7, timeout: 1h}\n    maxTrials: 3\n  "
    path.write_text(MANIFEST.replace(trial, budget + trial))
    read = read_manifest(path).spec.budget
    assert (read.max_trials, read.timeout) == (3, "1h")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudyError, match="No such file"):
        read_manifest(tmp_path / "absent.yaml")


def test_a_pruner_may_go_with_several_objectives_that_are_made_one() -> None:
    weights = {"weights": {"a": 1, "b": 0.5}}
    assert study(objectives=TWO, scalarize=weights, pruner={"name": "MedianPruner"}, stopWhen={}).spec.is_scalar


def test_an_objective_without_a_metric_has_the_default_one() -> None:
    assert study(objectives=[{"direction": "maximize"}]).spec.objectives[0].metric == "objective"


def test_what_the_worker_reads_is_what_was_written() -> None:
    original = study(
        workers={"nodes": 2, "processesPerNode": 2},
        objectives=TWO,
        scalarize={"weights": {"a": 1, "b": 0.5}},
        pruner={"name": "MedianPruner"},
        constraints=[{"metric": "c", "max": 1}],
        stopWhen={"improvement": {"name": "EMMREvaluator", "options": {"seed": 1}}, "minTrials": 5},
        initialTrials=[{"x": 1, "y": None}],
        warmStartFrom=[{"study": "small"}],
    )
    assert parse_study(original.model_dump(mode="json", by_alias=True, exclude_none=True)) == original


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("1m500ms", 60.5)])
def test_durations_are_kubernetes_own(text: str, seconds: float) -> None:
    timeout = study(trialTimeout=text).spec.trial_timeout
    assert timeout is not None
    assert (timeout, timeout.seconds) == (text, seconds)
