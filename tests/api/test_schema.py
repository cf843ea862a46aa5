"""What the API server itself says to a manifest: the schema and its CEL rules."""

from typing import Any

import pytest

from tests.api.harness import Team, study
from tests.support.kubectl import KubectlError
from tests.support.processes import REPOSITORY

FLOAT = {"type": "float", "low": 0.1, "high": 1}
TWO = [{"metric": metric, "direction": "minimize"} for metric in "ab"]


def parameter(**fields: Any) -> dict[str, Any]:
    return {"searchSpace": {"parameters": {"x": fields}}}


def command(**fields: Any) -> dict[str, Any]:
    return {"trial": {"command": {"argv": ["run"], **fields}}}


def create(team: Team, manifest: dict[str, Any]) -> None:
    assert team.api.create("hpstudies", team.namespace, manifest) == ""


@pytest.mark.parametrize(
    "spec",
    [
        {},
        parameter(type="int", low=1, high=5),
        parameter(type="int", low=1, high=9, step=2),
        parameter(type="float", low=1e-6, high=1e-4, log=True),
        parameter(type="float", low=0.5, high=0.5),
        parameter(type="categorical", choices=[2, "a", None, True, 0.5]),
        {"searchSpace": {"python": "train:space"}},
        {"objectives": [{"metric": "f1", "direction": "maximize"}, {"metric": "ms", "direction": "minimize"}]},
        {"sampler": {"name": "TPESampler", "options": {"seed": 7}}, "pruner": {"name": "MedianPruner"}},
        {
            "objectives": [objective | {"reference": 3} for objective in TWO],
            "scalarize": {"weights": {"a": 1, "b": 0.5}},
            "pruner": {"name": "MedianPruner"},
            "stopWhen": {"improvement": {"name": "EMMREvaluator", "options": {"seed": 1}}, "minTrials": 5},
        },
        {
            "constraints": [{"metric": "latency", "max": 20}, {"metric": "recall", "min": 0.5, "max": 1}],
            "initialTrials": [{"lr": 0.2, "optim": None, "sizes": [8, 8]}, {}],
            "warmStartFrom": [{"study": "small"}],
        },
        {"workers": {"nodes": 2, "processesPerNode": 2}},
        {"workers": {"processesPerNode": "auto", "template": {"spec": {"containers": [{"name": "worker"}]}}}},
        {"workers": {"isolation": "inline"}},
        {"searchSpace": None, "trial": {"script": {"path": "train.py", "args": ["--epochs", "3"]}}},
        {"storage": {"secretRef": {"name": "database"}}},
        {"trial": {"command": {"argv": ["run", "--lr={{ lr }}"]}}, "workers": {"nodes": 2, "processesPerNode": 1}},
        {
            "trial": {
                "command": {
                    "argv": ["run"],
                    "metrics": {"pattern": "(?P<name>[a-z]+)=(?P<value>[0-9.]+)"},
                    "workingDir": "code",
                    "env": {"OMP_NUM_THREADS": "1"},
                    "terminationGracePeriodSeconds": 0,
                }
            },
            "workers": {"processesPerNode": "auto", "trialsPerPod": 2},
        },
        {
            "trial": {
                "transformers": {
                    "task": "text-classification",
                    "model": {"config": {"model_type": "bert", "hidden_size": 64}},
                    "dataset": {"csv": "reviews.csv", "validation": 0.2, "test": 0.1},
                    "arguments": {"max_steps": 100, "optim": "adamw_torch"},
                }
            }
        },
    ],
)
def test_a_valid_study_is_taken_and_comes_back_as_it_was(team: Team, spec: dict[str, Any]) -> None:
    manifest = study(**spec)
    create(team, manifest)
    _contains(team.study()["spec"], manifest["spec"])


def _contains(live: Any, written: Any) -> None:
    if isinstance(written, dict):
        for key, value in written.items():
            _contains(live[key], value)
    else:
        assert live == written
        assert type(live) is type(written) or isinstance(written, float)


def test_the_default_budget_and_shape_are_filled_in(team: Team) -> None:
    create(team, study(budget=None))
    spec = team.study()["spec"]
    assert spec["budget"] == {"maxTrials": 20, "maxFailedTrials": 3}
    never = {"error": 0, "oom": 0, "metricMissing": 0, "timeout": 0}
    assert spec["retries"] == {**never, "preempted": 3, "lost": 3}
    assert (spec["parallelism"], spec["backend"]) == (1, "optuna")
    assert spec["workers"]["processesPerNode"] == "auto"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"maxTrials": 5}, 'unknown field "spec.maxTrials"'),
        ({"budget": {"maxTrial": 5}}, 'unknown field "spec.budget.maxTrial"'),
        (parameter(type="float", low=2, high=1), "low must not exceed high"),
        (parameter(type="float", low=0, high=1, log=True), "log needs a low above 0"),
        (parameter(type="float", low=-1, high=1, log=True), "log needs a low above 0"),
        (parameter(type="float", low=1, high=2, log=True, step=0.1), "log and step cannot be combined"),
        (parameter(type="float", low=1, high=2, step=0), "step must be above 0"),
        (parameter(type="int", low=1.5, high=2), "an int parameter needs whole numbers"),
        (parameter(type="int", low=1), "float and int parameters need low and high"),
        (parameter(type="categorical", choices=[]), "should have at least 1 items"),
        (parameter(type="categorical", choices=[1], low=1), "categorical parameters take no low"),
        (parameter(type="uniform", low=1, high=2), "Unsupported value"),
        (parameter(type="float", low="1e-6", high=1), "must be of type number"),
        ({"searchSpace": {}}, "searchSpace must have exactly one of parameters, optuna, ray, wandb, sigopt, python"),
        (
            {"searchSpace": {"parameters": {"x": FLOAT}, "python": "a:b"}},
            "searchSpace must have exactly one of parameters, optuna, ray, wandb, sigopt, python",
        ),
        ({"searchSpace": {"python": "no colon"}}, "should match"),
        (command(argv=[]), "should have at least 1 items"),
        (command(argv=[""]), "argv needs a program first"),
        (command(argv=["-c"]), "argv needs a program first"),
        (command(env={"A-B": "1"}), "env must have names of letters"),
        (command(env={"HPSTUDY_TRIAL": "1"}), "env must have names of letters"),
        (command(metrics={"file": "a", "pattern": "b"}), "metrics must have exactly one of file, pattern"),
        (command(metrics={"file": "/a"}), "below the trial's output folder"),
        (command(metrics={"file": "a/../b"}), "below the trial's output folder"),
        (command() | {"workers": {"processesPerNode": 2}}, "workers.processesPerNode must be 1 or auto"),
        ({"objectives": [{"metric": "f1"}]}, "objectives[0].direction: Required value"),
        ({"objectives": [{"metric": "f1", "direction": "up"}]}, "Unsupported value"),
        ({"objectives": []}, "should have at least 1 items"),
        ({"budget": {"gpuHours": 0}}, "gpuHours must be above 0"),
        ({"budget": {"timeout": "6 hours"}}, "should match"),
        (
            {"objectives": [{"metric": "f1", "direction": "maximize"}, {"metric": "f1", "direction": "minimize"}]},
            "each objective needs a metric of its own",
        ),
        (
            {
                "objectives": [{"metric": m, "direction": "maximize"} for m in "ab"],
                "pruner": {"name": "MedianPruner"},
            },
            "a pruner needs exactly one objective",
        ),
        (
            {"objectives": TWO, "scalarize": {"weights": {"a": 1, "c": 1}}},
            "scalarize.weights needs each metric of the objectives, and no other",
        ),
        ({"objectives": TWO, "scalarize": {"weights": {"a": 0, "b": 0}}}, "weights must be 0 or more, and one of them"),
        (
            {"objectives": TWO, "scalarize": {"weights": {"a": 2, "b": -1}}},
            "weights must be 0 or more, and one of them",
        ),
        ({"objectives": TWO, "stopWhen": {"minTrials": 5}}, "stopWhen needs exactly one objective"),
        ({"constraints": [{"metric": "latency"}]}, "a constraint needs max or min"),
        ({"constraints": [{"metric": "latency", "min": 2, "max": 1}]}, "min must not exceed max"),
        (
            {
                "objectives": [{"metric": "test_f1", "direction": "maximize"}],
                "trial": {
                    "transformers": {
                        "task": "text-classification",
                        "model": {"name": "m"},
                        "dataset": {"csv": "d.csv"},
                    }
                },
            },
            "are recorded, never optimised",
        ),
        ({"backend": "hyperopt"}, "Unsupported value"),
        ({"trial": {}}, "trial must have exactly one of transformers, function"),
        (
            {
                "trial": {
                    "function": "a:b",
                    "transformers": {
                        "task": "text-classification",
                        "model": {"name": "m"},
                        "dataset": {"csv": "d.csv"},
                    },
                }
            },
            "trial must have exactly one of transformers, function",
        ),
        (
            {
                "trial": {
                    "transformers": {
                        "task": "text-classification",
                        "model": {"name": "m", "config": {"model_type": "bert"}},
                        "dataset": {"csv": "d.csv"},
                    }
                }
            },
            "model must have exactly one of name, config",
        ),
        (
            {
                "trial": {
                    "transformers": {
                        "task": "text-classification",
                        "model": {"name": "m"},
                        "dataset": {"csv": "d.csv", "validation": 0.6, "test": 0.5},
                    }
                }
            },
            "must leave rows to train on",
        ),
        (
            {"checkpoints": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}, "url": "s3://bucket"}},
            "checkpoints takes volume or url, not both",
        ),
        ({"checkpoints": {"url": "s3://key:secret@bucket/folder"}}, "must hold no credentials"),
        ({"checkpoints": {"url": "/folder"}}, "spec.checkpoints.url"),
        (
            {"checkpoints": {"url": "s3://bucket"}, "trial": {"script": {"path": "train.py"}}},
            "checkpoints are not for trial.script",
        ),
        ({"budget": {"maxTrials": 0}}, "should be greater than or equal to 1"),
        ({"retries": {"oom": 101}}, "should be less than or equal to 100"),
        ({"parallelism": 0}, "should be greater than or equal to 1"),
        ({"workers": {"processesPerNode": "many"}}, "or auto"),
        ({"workers": {"processesPerNode": 0}}, "or auto"),
        ({"trialTimeout": "90"}, "spec.trialTimeout in body should match"),
        ({"trialTimeout": "0s"}, "must be longer than 0"),
        ({"workers": {"trialsPerPod": 65}}, "must be a whole number from 1 to 64, or auto"),
        ({"workers": {"trialsPerPod": "auto", "nodes": 2}}, "trialsPerPod other than 1 needs nodes: 1"),
        ({"workers": {"trialsPerPod": 2, "isolation": "inline"}}, "trialsPerPod other than 1 needs isolation"),
        ({"trial": {"script": {"path": "a.py"}}, "workers": {"trialsPerPod": 2}}, "is not for trial.script"),
        ({"trial": None}, "spec.trial: Required value"),
        ({"searchSpace": None}, "searchSpace is required; only a trial.script may bring its own"),
        ({"trial": {"script": {"path": "a.py"}}, "workers": {"isolation": "inline"}}, "isolation inline is for"),
        ({"workers": {"isolation": "pod"}}, "Unsupported value"),
    ],
)
def test_a_mistake_is_refused_in_words(team: Team, spec: dict[str, Any], words: str) -> None:
    assert words in team.api.create("hpstudies", team.namespace, study(**spec))


@pytest.mark.parametrize("name", ["a" * 53, "2reviews", "re.views"])
def test_a_name_that_no_service_could_have_is_refused(team: Team, name: str) -> None:
    assert "metadata.name" in team.api.create("hpstudies", team.namespace, study(name))


YAML = """
apiVersion: hpstudy.io/v1alpha1
kind: HPStudy
metadata: {{name: reviews}}
spec:
  objectives: [{{metric: f1, direction: maximize}}]
  searchSpace: {{parameters: {{lr: {{type: float, low: {low}, high: 1e-4, log: true}}}}}}
  trial: {{function: "a:b"}}
"""


def test_a_number_without_a_dot_is_a_number(team: Team) -> None:
    team.apply(YAML.format(low="1e-6"))
    assert team.study()["spec"]["searchSpace"]["parameters"]["lr"] == {
        "type": "float",
        "low": 1e-6,
        "high": 1e-4,
        "log": True,
    }


def test_and_a_string_is_not(team: Team) -> None:
    with pytest.raises(KubectlError, match="must be of type number"):
        team.kubectl("create", "-f", "-", stdin=YAML.format(low='"1e-6"'))


class TestOnceStarted:
    @pytest.fixture
    def started(self, team: Team) -> Team:
        create(team, study())
        team.api.patch("hpstudies", team.namespace, "reviews", {"status": {"startTime": "2026-01-01T00:00:00Z"}})
        return team

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ({"objectives": [{"metric": "loss", "direction": "minimize"}]}, "directions of the objectives"),
            ({"searchSpace": {"parameters": {"lr": FLOAT}}}, "the search space"),
            ({"constraints": [{"metric": "loss", "max": 1}]}, "constraints"),
            ({"warmStartFrom": [{"study": "other"}]}, "warmStartFrom"),
            ({"checkpoints": {"url": "s3://bucket"}}, "checkpoints"),
            ({"storage": {"secretRef": {"name": "other"}}}, "storage"),
        ],
    )
    def test_what_the_trials_depend_on_cannot_change(self, started: Team, spec: dict[str, Any], words: str) -> None:
        with pytest.raises(KubectlError, match=f"{words} cannot change once the study has started; make a new study"):
            started.kubectl.patch("hps", "reviews", {"spec": spec})

    def test_budget_goals_retries_parallelism_and_image_can(self, started: Team) -> None:
        template = {"spec": {"containers": [{"name": "worker", "image": "new"}]}}
        change = {
            "budget": {"maxTrials": 99, "timeout": "6h", "gpuHours": 0.5},
            "objectives": [{"metric": "eval_f1", "direction": "maximize", "goal": 0.9, "reference": 0}],
            "retries": {"error": 1},
            "parallelism": 4,
            "workers": {"template": template},
        }
        started.kubectl.patch("hps", "reviews", {"spec": change})
        assert started.study()["spec"]["budget"]["maxTrials"] == 99

    def test_suspend_sampler_and_shape_can(self, started: Team) -> None:
        change = {"suspend": True, "sampler": {"name": "RandomSampler"}, "trialTimeout": "1h", "workers": {"nodes": 2}}
        started.kubectl.patch("hps", "reviews", {"spec": change})

    def test_a_trial_may_be_corrected_until_there_are_results_to_compare_with(self, started: Team) -> None:
        started.api.patch("hpstudies", started.namespace, "reviews", {"status": {"trials": {"failed": 2, "total": 2}}})
        started.kubectl.patch("hps", "reviews", {"spec": {"trial": {"function": "corrected:objective"}}})
        started.api.patch("hpstudies", started.namespace, "reviews", {"status": {"trials": {"pruned": 1}}})
        with pytest.raises(KubectlError, match="trial cannot change once trials have finished"):
            started.kubectl.patch("hps", "reviews", {"spec": {"trial": {"function": "other:objective"}}})
        started.kubectl.patch("hps", "reviews", {"spec": {"parallelism": 3}})

    def test_initial_trials_may_be_corrected_until_one_has_begun(self, started: Team) -> None:
        started.kubectl.patch("hps", "reviews", {"spec": {"initialTrials": [{"lr": 0.1, "sizes": [8, 8]}]}})
        started.api.patch(
            "hpstudies", started.namespace, "reviews", {"status": {"lastTrialTime": "2026-01-01T00:00:01Z"}}
        )
        started.kubectl.patch("hps", "reviews", {"spec": {"initialTrials": [{"sizes": [8, 8], "lr": 0.1}]}})
        for other in ([{"lr": 0.1, "sizes": [8, 9]}], [{"lr": 0.1, "sizes": [8, 8]}, {"lr": 0.2}], [], None):
            with pytest.raises(KubectlError, match="initialTrials cannot change once a trial has begun"):
                started.kubectl.patch("hps", "reviews", {"spec": {"initialTrials": other}})

    def test_before_the_start_everything_can(self, team: Team) -> None:
        create(team, study())
        team.kubectl.patch("hps", "reviews", {"spec": {"searchSpace": {"parameters": {"lr": FLOAT}}}})


def test_a_study_shows_its_columns_and_answers_to_its_short_name(team: Team) -> None:
    create(team, study())
    team.api.patch("hpstudies", team.namespace, "reviews", {"status": {"progress": "3/10", "best": "0.9"}})
    header, row = team.kubectl("get", "hps").splitlines()
    assert header.split() == ["NAME", "BACKEND", "PROGRESS", "BEST", "AGE"]
    assert row.split()[:4] == ["reviews", "optuna", "3/10", "0.9"]
    assert "hpstudy.hpstudy.io/reviews" in team.kubectl("get", "all", "-o", "name")


def test_every_field_is_explained(team: Team) -> None:
    text = team.kubectl("explain", "hpstudy.spec", "--recursive=false")
    assert "hyperparameter study" in text
    for field in team.kubectl("explain", "hpstudy.spec.budget").splitlines():
        assert "<no description>" not in field


def test_the_examples_are_valid(team: Team) -> None:
    for path in sorted((REPOSITORY / "examples").glob("*.yaml")):
        text = path.read_text()
        if "kind: HPStudy" in text:
            team.apply(text)
    assert team.names("hpstudies")
