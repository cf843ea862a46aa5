"""The best trial as others read it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.status import BestTrial
from hpstudy.cli.main import main
from hpstudy.report.best import as_environment, documents, template_values
from hpstudy.samplers.build import check_algorithms
from hpstudy.space.job_template import fill_job_template
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.reading import StudySnapshot
from tests.support.builders import manifest, spec

TRICKY = {
    "text": "a 'b' \"c\" $HOME `id` \\ \n价格;",
    "sizes": [8, 16],
    "optimizer": {"lr": 1e-06},
    "on": True,
    "no": None,
}
NESTED = {"ray": {"optimizer": {"lr": {"uniform": [0, 1]}}, "layers": {"choice": [[[8], [8, 16]]]}}}
TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "ms", "direction": "minimize"}]


def job(*args: str, **pod: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "final", "args": list(args)}], **pod}}}}


def test_a_shell_reads_the_environment_back_as_it_was() -> None:
    script = (
        as_environment(TRICKY)
        + 'printf "%s|" "$HPSTUDY_PARAM_TEXT" "$HPSTUDY_PARAM_SIZES" "$HPSTUDY_PARAM_OPTIMIZER_LR"'
    )
    for shell in ("sh", "bash"):
        found = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True).stdout
        assert found == f"{TRICKY['text']}|[8, 16]|1e-06|"


def test_plain_values_need_no_quotes_so_that_docker_reads_them_too() -> None:
    assert as_environment({"lr": 1e-05, "optim": "adamw_torch", "path": "/data/a-b.csv", "n": -3, "on": True}) == (
        "HPSTUDY_PARAM_LR=1e-05\nHPSTUDY_PARAM_OPTIM=adamw_torch\nHPSTUDY_PARAM_PATH=/data/a-b.csv\n"
        "HPSTUDY_PARAM_N=-3\nHPSTUDY_PARAM_ON=true\n"
    )


def test_two_names_of_one_variable_are_both_left_out() -> None:
    assert as_environment({"a.b": 1, "a_b": 2, "c": 3}) == "HPSTUDY_PARAM_C=3\n"


def test_hyperparameters_are_as_the_trial_got_them_and_not_as_the_storage_has_them() -> None:
    trial = BestTrial(number=4, values={"loss": 0.5}, hyperparameters={"optimizer.lr": 0.25, "layers": "[8, 16]"})
    found = documents(StudySnapshot(best=(trial,)), spec(backend="ray", searchSpace=NESTED))
    assert json.loads(found["hyperparameters.json"]) == {"optimizer": {"lr": 0.25}, "layers": [8, 16]}
    assert (found["HPSTUDY_PARAM_OPTIMIZER_LR"], found["HPSTUDY_PARAM_LAYERS"]) == ("0.25", "[8, 16]")


def test_nothing_is_written_before_a_trial_is_complete() -> None:
    assert documents(StudySnapshot(), spec()) == {}


def test_the_best_of_a_front_is_that_of_the_weights(tmp_path: Path) -> None:
    fields = {"objectives": TWO, "scalarize": {"weights": {"f1": 100, "ms": 1}}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(manifest("mine", **fields)))
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    stored = open_study(open_storage(storage), "mine", spec(**fields))
    for x, values in ((0.0, (0.9, 30.0)), (1.0, (0.8, 10.0)), (2.0, (0.7, 20.0))):
        stored.enqueue_trial({"x": x})
        trial = stored.ask()
        trial.suggest_float("x", -2, 2)
        stored.tell(trial, values)
    printed = CliRunner().invoke(main, ["best", str(path), "--storage", storage])
    assert (printed.exit_code, json.loads(printed.output)["number"]) == (0, 1)
    lines = CliRunner().invoke(main, ["best", str(path), "--storage", storage, "--format", "env"])
    assert lines.output == "HPSTUDY_PARAM_X=1.0\n"

    path.write_text(yaml.safe_dump(manifest("mine", objectives=TWO)))
    front = CliRunner().invoke(main, ["best", str(path), "--storage", storage])
    assert [trial["number"] for trial in json.loads(front.output)] == [0, 1]
    refused = CliRunner().invoke(main, ["best", str(path), "--storage", storage, "--format", "env"])
    assert (refused.exit_code, "take --format json" in refused.output) == (2, True)


def test_a_study_that_has_not_run_here_has_no_best_trial(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(manifest("mine")))
    none = CliRunner().invoke(main, ["best", str(path), "--output", str(tmp_path)])
    assert (none.exit_code, "holds no study; run it first" in none.output) == (2, True)
    open_study(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "mine", spec())
    empty = CliRunner().invoke(main, ["best", str(path), "--output", str(tmp_path)])
    assert (empty.exit_code, "no trial is complete yet" in empty.output) == (1, True)


class TestTemplate:
    def test_every_text_is_filled_in_and_nothing_else_changes(self) -> None:
        checkpoint = "/checkpoints/4/best"
        trial = BestTrial(number=4, values={"loss": 0.5}, hyperparameters={"x": 1e-06}, checkpoint=checkpoint)
        values = template_values(trial, spec())
        template = job("--lr={{ x }}", "{{trial.checkpoint}}", "{{ trial.value }}", "$(A) %s {x}", activeSeconds=3)
        template["metadata"] = {
            "labels": {"trial": "t{{ trial.number }}"},
            "annotations": {"all": "{{ trial.hyperparameters }}"},
        }
        filled = fill_job_template(template, values)
        assert filled["spec"]["template"]["spec"]["containers"][0]["args"] == [
            "--lr=1e-06",
            checkpoint,
            "0.5",
            "$(A) %s {x}",
        ]
        assert filled["metadata"] == {"labels": {"trial": "t4"}, "annotations": {"all": '{"x": 1e-06}'}}
        assert filled["spec"]["template"]["spec"]["activeSeconds"] == 3
        assert template["metadata"]["labels"] == {"trial": "t{{ trial.number }}"}

    def test_the_value_of_several_objectives_is_their_weighted_sum(self) -> None:
        trial = BestTrial(number=0, values={"f1": 0.5, "ms": 20.0}, hyperparameters={"x": 1.0})
        weighed = spec(objectives=TWO, scalarize={"weights": {"f1": 100, "ms": 1}})
        assert template_values(trial, weighed)["trial.value"] == "-30.0"

    def test_arguments_and_variables_that_name_what_a_trial_lacks_are_left_out(self) -> None:
        template = job("--lr={{ lr }}", "--momentum={{ momentum }}")
        container = template["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [{"name": "M", "value": "{{ momentum }}"}, {"name": "L", "value": "{{ lr }}"}]
        filled = fill_job_template(template, {"lr": "1"})["spec"]["template"]["spec"]["containers"][0]
        assert (filled["args"], filled["env"]) == (["--lr=1"], [{"name": "L", "value": "1"}])
        container["image"] = "my:{{ momentum }}"
        with pytest.raises(InvalidStudyError, match=r"containers\[0\].image: the best trial has no momentum"):
            fill_job_template(template, {"lr": "1"})

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({}, "args.0.: 'y' is no hyperparameter of the search space; there are x, trial.number, trial.value"),
            ({"searchSpace": {"python": "m:f"}}, None),
        ],
    )
    def test_a_name_that_no_trial_has_is_refused_where_the_names_are_known(
        self, fields: dict[str, Any], words: str | None
    ) -> None:
        made = spec(onSuccess={"template": job("{{ y }}")}, **fields)
        if words is None:
            check_algorithms(made)
            return
        with pytest.raises(InvalidStudyError, match=words) as refused:
            check_algorithms(made)
        assert refused.value.reason == "InvalidOnSuccess"

    @pytest.mark.parametrize("text", ["{{ x", "{{ trial.output_dir }}", "{{ trial.checkpoint }}"])
    def test_what_is_no_template_or_will_not_be_there_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidStudyError, match=r"onSuccess.template.spec.template.spec.containers\[0\].args\[0\]"):
            check_algorithms(spec(onSuccess={"template": job(text)}, searchSpace={"python": "m:f"}))

    def test_a_checkpoint_may_be_named_where_the_study_keeps_one(self) -> None:
        check_algorithms(spec(onSuccess={"template": job("{{ trial.checkpoint }}")}, checkpoints={"keep": "best"}))


def test_the_front_has_no_trial_to_train(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudyError, match="onSuccess needs exactly one objective, or scalarize"):
        spec(objectives=TWO, onSuccess={"template": job("x")})
