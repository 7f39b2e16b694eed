"""The page of a run: what it learnt from, how, how good it is, where it fails, what it sees, how to repeat it.

Each function fills in one part of `templates/report.html`, in the order of the page.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.architecture import trace
from foveola.evaluation.curves import (
    confused_pairs,
    least_certain,
    neighbour_map,
    neighbours,
    principal_plane,
    worst_mistakes,
)
from foveola.images import Images, shape_text
from foveola.report import figures, tiles
from foveola.report.html import drawing, picture, render
from foveola.report.run_material import Material, answered
from foveola.report.run_sight import sight

SAMPLES, FAILURES, PAIRS, EXAMPLES = 25, 12, 4, 4
FEWEST_ON_THE_MAP, ON_THE_MAP = 10, 1000
# More classes than this make a matrix that nobody reads: then it shows those that are confused most
MATRIX_CLASSES = 30
# The calibration error, in shares, up to which probabilities can be taken at their word, and up to which roughly so
WELL_CALIBRATED, ROUGHLY_CALIBRATED = 0.02, 0.05


def render_run(material: Material) -> str:
    """The page as HTML, complete in itself."""
    status = material.run.status
    colours = _colours(material)
    return render(
        "report.html",
        title=f"{status['data']['name']} · {status['recipe']['name']}",
        summary=_summary(material),
        warnings=_warnings(material, status),
        cards=_cards(material, status),
        data=_data(material, status),
        training=_training(material, status),
        quality=_quality(material, colours),
        failures=_failures(material),
        sight=sight(material),
        plane=_plane(material, colours),
        repeat=_repeat(material, status),
        evaluation=material.evaluation,
    )


def _colours(material: Material) -> dict[int, str]:
    """A colour for each class, or, where there are too many to be told apart, for those that are recognised worst."""
    most = len(figures.CLASS_COLOURS)
    chosen = list(range(len(material.class_names)))
    if len(chosen) > most and material.evaluation is not None:
        recognised = np.array([row["f1"] for row in material.evaluation["per_class"]])
        chosen = sorted(recognised.argsort(kind="stable")[:most].tolist())
    return dict(zip(chosen, figures.CLASS_COLOURS, strict=False))


def _summary(material: Material) -> dict[str, Any]:
    """What the plain-language sentences at the top say."""
    evaluation = material.evaluation
    if evaluation is None:
        return {"measured": False}
    ece = evaluation["reliability"]["after"]["ece"]
    confused = evaluation["confused_pairs"][:1]
    supports = [row["support"] for row in evaluation["per_class"]]
    return {
        "measured": True,
        "accuracy": evaluation["accuracy"],
        "n": evaluation["n"],
        "baseline": max(supports) / sum(supports),
        "mistakes": evaluation["n"] - round(evaluation["accuracy"]["value"] * evaluation["n"]),
        "ece": ece,
        "ece_before": evaluation["reliability"]["before"]["ece"],
        "calibrated": "well" if ece <= WELL_CALIBRATED else "roughly" if ece <= ROUGHLY_CALIBRATED else "badly",
        "confused": confused[0] | {"count": sum(confused[0]["taken_for_the_other"])} if confused else None,
    }


def _warnings(material: Material, status: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if status["status"] != "done":
        found.append(f"The training did not end as planned: its status is “{status['status']}”.")
    if skipped := status["data"].get("skipped"):
        found.append(f"{_count(len(skipped), 'image')} could not be read, and left out; the first is {skipped[0]}.")
    if material.evaluation is None:
        reason = "this run holds no test images out" if "test" not in material.splits else "the run has no evaluation"
        found.append(f"How good the model is has not been measured: {reason}.")
    elif material.evaluation["accuracy"]["high"] - material.evaluation["accuracy"]["low"] > 0.05:
        found.append(f"There are only {material.evaluation['n']:,} test images, so that the intervals are wide.")
    counts = material.splits["train"].class_counts
    if counts.max() > 10 * counts.min():
        few, many = material.class_names[counts.argmin()], material.class_names[counts.argmax()]
        found.append(f"The classes are unequal: {counts.min():,} training images of {few}, {counts.max():,} of {many}.")
    if "validation" not in material.splits:
        found.append("Without validation images, no temperature was fitted: probabilities are the network's own.")
    return found


def _cards(material: Material, status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The facts at a glance: value, name, remark."""
    cards = []
    if material.evaluation is not None:
        accuracy, auc = material.evaluation["accuracy"], material.evaluation["auc_macro_ovr"]["value"]
        cards.append((f"{100 * accuracy['value']:.1f} %", "accuracy", f"of {material.evaluation['n']:,} test images"))
        cards.append(("–" if auc is None else f"{auc:.4f}", "AUC", "one-vs-rest, macro"))
    cards.append((f"{status['data']['train']:,}", "training images", f"of {len(material.class_names)} classes"))
    cards.append((f"{status['model']['parameters']:,}", "parameters", status["recipe"]["name"]))
    cards.append((f"{status['seconds']['training']:.1f} s", "of training", f"{status['steps']:,} steps"))
    return cards


def _data(material: Material, status: Mapping[str, Any]) -> dict[str, Any]:
    train = material.splits["train"]
    origin = material.classifier.card.data
    chosen = _by_lot(len(train), SAMPLES)
    counts = {name: images.class_counts for name, images in material.splits.items()}
    return {
        "name": status["data"]["name"],
        "licence": origin.licence if origin else None,
        "fingerprint": status["data"]["fingerprint"],
        "shape": shape_text(train.image_shape),
        "splits": {name: len(images) for name, images in material.splits.items()},
        "samples": [_captioned(train.images[i], train.class_names[train.labels[i]]) for i in chosen],
        "balance": [
            {"name": name, "counts": [int(counts[part][label]) for part in counts], "share": share}
            for label, (name, share) in enumerate(
                zip(material.class_names, counts["train"] / counts["train"].max(), strict=True)
            )
        ],
    }


def _training(material: Material, status: Mapping[str, Any]) -> dict[str, Any]:
    run, card = material.run, material.classifier.card
    recipe = run.recipe
    history = run.history if run.history_path.is_file() else []
    steps = [] if card.layers is None else trace(card.layers, card.network_shape, len(card.class_names))
    panels = figures.training_curves(history, "epoch" if recipe.batches == "epoch" else "step") if history else {}
    return {
        "facts": {
            "Recipe": f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
            "Length": f"{_count(status['epochs'], 'epoch')}, {status['steps']:,} steps of {recipe.batch_size} images",
            "Optimizer": f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, {recipe.schedule} schedule",
            "Weights kept": _kept(recipe.keep, status),
            "Temperature": f"{card.temperature:.3f}" if "validation" in material.splits else "not fitted",
            "Computed on": f"{status['device']}, {status['precision']}",
        },
        "layers": [
            {
                "name": step.name,
                "settings": step.layer.describe(),
                "shape": shape_text(step.output_shape),
                "parameters": step.parameters,
                "multiply_adds": step.multiply_adds,
            }
            for step in steps
        ],
        "network": type(material.classifier.network).__name__,
        "panels": [drawing(figure, f"{title} over the training") for title, figure in panels.items()],
        "toml": recipe.to_toml(),
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _kept(keep: str, status: Mapping[str, Any]) -> str:
    return f"those of epoch {status['chosen_epoch']}, the best one" if keep == "best" else "those of the last step"


def _quality(material: Material, colours: Mapping[int, str]) -> dict[str, Any] | None:
    evaluation = material.evaluation
    if evaluation is None:
        return None
    learnt = material.splits["train"].class_counts
    calibration, curve = evaluation["reliability"], evaluation["risk_coverage"]
    scaled = calibration["temperature"] != 1
    bins = calibration["before"]["bins"], calibration["after"]["bins"]
    return {
        "figures": [{"text": text, "meaning": meaning, **evaluation[key]} for key, text, meaning in _FIGURES],
        "classes": [
            {**row, "auc": roc["auc"], "learnt": int(learnt[label]), "colour": colours.get(label)}
            for label, (row, roc) in enumerate(zip(evaluation["per_class"], evaluation["roc"], strict=True))
        ],
        "matrix": _matrix(np.array(evaluation["confusion"]), material.class_names),
        "roc": [
            drawing(figures.roc_curves(evaluation["roc"], colours), "ROC curve of each class against the rest"),
            drawing(figures.roc_curves(evaluation["roc"], colours, reach=0.1), "Upper left corner of the ROC curves"),
        ],
        "reliability": drawing(figures.reliability(*bins, scaled), "Share of right answers over confidence"),
        "risk": drawing(figures.risk_coverage(curve["coverage"], curve["risk"]), "Errors over share answered"),
        "scaled": scaled,
        "calibration": calibration,
        "risk_coverage": curve,
        "rejection": evaluation.get("rejection"),
        "others": len(material.class_names) - len(colours),
    }


_FIGURES = (
    ("accuracy", "Accuracy", "share of images whose most probable class is the true one"),
    ("auc_macro_ovr", "AUC, one-vs-rest, macro", "how well each class is told from the rest; 1 is perfect, 0.5 chance"),
    ("log_loss", "Log loss", "surprise at the true class, in nats; 0 is perfect"),
    ("brier", "Brier score", "squared distance between probabilities and truth; 0 is perfect, 2 the worst"),
    ("ece", "Calibration error (ECE)", "mean distance between confidence and share of right answers; 0 is perfect"),
)  # fmt: skip


def _matrix(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Confusion matrix of all classes, or of those confused most; its orders; each cell's share of its row."""
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    worst_first = np.argsort(-errors, kind="stable")
    shown = np.sort(worst_first[:MATRIX_CLASSES])
    part = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return {
        "names": [names[label] for label in shown],
        "rows": [[(int(counts[i, j]), round(float(np.sqrt(shares[i, j])), 3)) for j in shown] for i in shown],
        "left_out": len(names) - len(shown),
        "orders": {
            "as in the data": list(range(len(shown))),
            "most mistakes first": np.argsort(-errors[shown], kind="stable").tolist(),
            "confused classes side by side": neighbours(part).tolist(),
        },
    }


def _failures(material: Material) -> dict[str, Any] | None:
    if material.evaluation is None:
        return None
    predictions = material.predictions
    pairs = confused_pairs(np.array(material.evaluation["confusion"]))
    return {
        "wrong": int((predictions.predicted != predictions.labels).sum()),
        "worst": [answered(material, index) for index in worst_mistakes(predictions)[:FAILURES]],
        "uncertain": [answered(material, index) for index in least_certain(predictions)[:FAILURES]],
        "pairs": [_side_by_side(material, pair.first, pair.second) for pair in pairs[:PAIRS]],
    }


def _side_by_side(material: Material, first: int, second: int) -> list[dict[str, Any]]:
    """Two classes: of each what is recognised, and what is taken for the other, surest first."""
    predictions, names = material.predictions, material.class_names
    columns = []
    for true, given in ((first, first), (first, second), (second, first), (second, second)):
        members = np.flatnonzero((predictions.labels == true) & (predictions.predicted == given))
        surest = members[np.argsort(-predictions.probabilities[members, given], kind="stable")]
        columns.append(
            {
                "true": names[true],
                "given": names[given],
                "count": len(members),
                "pictures": [answered(material, index) for index in surest[:EXAMPLES]],
            }
        )
    return columns


def _plane(material: Material, colours: Mapping[int, str]) -> dict[str, Any] | None:
    """Images as points: by their pixels, and by what the network makes of them."""
    from foveola.explanation.features import last_features

    chosen = _by_lot(len(material.images), ON_THE_MAP)
    if len(chosen) < FEWEST_ON_THE_MAP:
        return None
    images, labels = material.images.images[chosen], material.predictions.labels[chosen]
    stride = -(-max(images.shape[1:3]) // tiles.LARGEST)
    by_pixels, share = principal_plane(images[:, ::stride, ::stride].reshape(len(images), -1).astype(np.float32))
    by_features = neighbour_map(last_features(material.classifier, images))
    return {
        "n": len(chosen),
        "split": material.name,
        "share": share,
        "panels": [
            drawing(figures.plane(by_pixels, labels, colours, "By their pixels"), "Map of the images by their pixels"),
            drawing(figures.plane(by_features, labels, colours, "By the network"), "Map of the images by the network"),
        ],
        "legend": [(material.class_names[label], colour) for label, colour in colours.items()],
        "others": len(material.class_names) - len(colours),
    }


def _repeat(material: Material, status: Mapping[str, Any]) -> dict[str, Any]:
    source = status["data"].get("path") or status["data"]["name"]
    data, recipe = shlex.quote(source), shlex.quote(str(material.run.path / "recipe.toml"))
    own = material.classifier.card.layers is None
    python = f"foveola.train({source!r}, {str(material.run.path / 'recipe.toml')!r}, "
    return {
        "command": f"foveola train {data} --recipe {recipe} --seed {status['seed']}",
        "python": f"{python}seed={status['seed']}, network=YourModule())" if own else None,
        "seed": status["seed"],
        "versions": status["versions"],
    }


def _captioned(image: Images, name: str) -> dict[str, str]:
    return {"picture": picture(tiles.thumbnail(image)), "name": name}


def _by_lot(n: int, count: int) -> NDArray[np.int64]:
    """Indices of `count` of n images, drawn by lot, in their order; of all where there are no more."""
    return np.sort(np.random.default_rng(0).permutation(n)[:count])
