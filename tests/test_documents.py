"""Documents: what is written is read back, older formats are read, newer and damaged ones refused."""

import json
import math

import numpy as np
import pytest

import foveola
from foveola.documents import (
    Audit,
    Catalog,
    Comparison,
    Document,
    Environment,
    Evaluation,
    LearningRateCurve,
    RunStatus,
    Summary,
    TrainedRun,
)
from foveola.errors import DataError, ModelError
from foveola.models.metadata import ModelMetadata
from foveola.predictions import Predictions
from foveola.runs import Run
from foveola.workflow.environment import describe_environment
from foveola.workflow.evaluate import evaluate_predictions

METRICS = {"accuracy", "balanced_accuracy", "macro_f1", "auc_macro_ovr", "log_loss", "brier", "ece"}
CURVES = {"roc", "reliability", "risk_coverage", "confused_pairs"}


@pytest.fixture(scope="module")
def documents(toy, toy_run, tiny, tmp_path_factory) -> dict[str, str]:
    """The JSON text of one document of each kind, by the name of its class."""
    from typer.testing import CliRunner

    from foveola.cli import app

    def printed(*arguments: str) -> str:
        return CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout

    run = Run.open(toy_run)
    audit = foveola.audit(toy, recipe=tiny, epochs=1, retrain=True, out=tmp_path_factory.mktemp("audit"), verbose=False)
    trained = TrainedRun(**vars(run.status), run=str(toy_run), evaluation=run.evaluation)
    return {
        "RunStatus": run.status.to_json(),
        "Evaluation": run.evaluation.to_json(),
        "TrainedRun": trained.to_json(),
        "Comparison": foveola.compare(toy_run, toy_run, data=toy, verbose=False).to_json(),
        "Audit": audit.to_json(),
        "Summary": printed("summary", "lenet5"),
        "Catalog": printed("datasets"),
        "Environment": describe_environment().to_json(),
        "LearningRateCurve": foveola.find_rate(toy, tiny, out=tmp_path_factory.mktemp("rate"), verbose=False).to_json(),
    }


KINDS: tuple[type[Document], ...] = (
    RunStatus, Evaluation, TrainedRun, Comparison, Audit, Summary, Catalog, Environment, LearningRateCurve,
)  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def evaluation_with_nan() -> Evaluation:
    """Labels of one class only: the area under the ROC curve is not defined."""
    logits = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
    predictions = Predictions(logits, np.array([0, 0]), ("cat", "dog"), held_out=True)
    metadata = ModelMetadata(class_names=("cat", "dog"), image_shape=(8, 8, 1))
    return evaluate_predictions(predictions, "test", metadata)


@every_kind
def test_a_document_is_read_back_as_it_was_written(documents, kind):
    text = documents[kind.__name__]
    document = kind.from_json(text, "file")
    assert kind.from_json(document.to_json(), "file") == document
    assert json.loads(document.to_json()) == json.loads(text)
    assert next(iter(json.loads(text))) == "format"


@every_kind
def test_a_document_without_a_format_is_format_1(documents, kind):
    text = documents[kind.__name__]
    content = json.loads(text)
    assert content.pop("format") == 1
    assert kind.from_json(json.dumps(content), "file") == kind.from_json(text, "file")


@every_kind
def test_a_newer_format_is_refused_by_name(documents, kind):
    content = json.loads(documents[kind.__name__]) | {"format": 2}
    with pytest.raises(ModelError, match=r"^here/file\.json has format 2, .*formats up to 1\. Update Foveola"):
        kind.from_json(json.dumps(content), "here/file.json")


@every_kind
@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[1]", "null", b"\xff\xfe", "[" * 100_000, '{"a":' * 100_000, '{"format": "new"}', '{"format": 0}'],
    ids=["empty", "cut", "no keys", "list", "null", "not UTF-8", "deep list", "deep object", "format text", "format 0"],
)
def test_damaged_json_is_a_model_error_that_names_the_file(kind, text):
    with pytest.raises(ModelError, match=r"^here/file\.json is damaged"):
        kind.from_json(text, "here/file.json")


def test_the_caller_chooses_the_error():
    with pytest.raises(DataError, match="pack"):
        RunStatus.from_json("{", "pack", error=DataError)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@every_kind
def test_a_truncated_document_is_damaged(documents, kind, cut):
    text = documents[kind.__name__]
    with pytest.raises(ModelError, match="file is damaged"):
        kind.from_json(text[: int(len(text) * cut)], "file")


def test_an_undefined_value_is_null_in_json_and_nan_when_read_back():
    evaluation = evaluation_with_nan()
    assert not evaluation.metrics["auc_macro_ovr"].is_defined
    content = json.loads(evaluation.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["auc_macro_ovr"]["value"] is None
    again = Evaluation.from_json(evaluation.to_json(), "file")
    assert math.isnan(again.metrics["auc_macro_ovr"].value)
    assert again.to_json() == evaluation.to_json()


def test_metrics_and_curves_are_keys_of_the_evaluation_itself(documents):
    content = json.loads(documents["Evaluation"])
    assert content.keys() >= METRICS | CURVES
    assert {"format", "split", "n", "held_out", "per_class", "confusion"} <= content.keys()
    assert {"metrics", "curves"}.isdisjoint(content)
    for metric in METRICS:
        assert content[metric].keys() == {"value", "low", "high", "n", "method"}
    assert {"name", "precision", "recall", "f1", "support"} <= content["per_class"][0].keys()


def test_the_keys_of_run_json(documents):
    content = json.loads(documents["RunStatus"])
    keys = {"format", "status", "recipe", "data", "model", "seconds", "epochs", "seed", "versions"}
    assert keys <= content.keys()
    assert {"name", "fingerprint", "train", "validation", "test", "classes"} <= content["data"].keys()
    assert content["model"].keys() == {"parameters"}
    assert content["seconds"].keys() == {"training", "total"}
