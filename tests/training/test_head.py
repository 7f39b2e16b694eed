"""The last layer, fitted by logistic regression to the features of the others, and what trains after it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

import foveola
from foveola.errors import RecipeError
from foveola.explanation.activations import penultimate_features
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback, History
from foveola.training.head import MIDDLE_STRENGTH, STRENGTHS, fit_head, folded_body
from foveola.training.loop import fit
from foveola.training.optimizers import build_optimizers

CPU = {"device": torch.device("cpu"), "precision": torch.float32}
LAYERS = [
    {"type": "Conv2D", "filters": 6, "padding": "same", "bias": False},
    {"type": "BatchNorm"},
    {"type": "Residual", "layers": [{"type": "DepthwiseConv2D", "padding": "same"}, {"type": "BatchNorm"}]},
    {"type": "Conv2D", "filters": 8, "padding": "same", "activation": "relu"},
    {"type": "BatchNorm"},
    {"type": "GlobalAveragePool2D"},
    {"type": "Dropout", "rate": 0.5},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def classifier_of(toy, recipe_of):
    """Function that makes a recipe, images, and a classifier whose batch normalisation has seen something."""

    def make(images=None, **changes):
        recipe = recipe_of(**{"layers": LAYERS, "head_views": 1} | changes)
        images = images or toy(96)
        classifier = build_classifier(recipe, images, seed=0).train()
        with torch.no_grad():
            classifier(torch.from_numpy(images.images))
        return recipe, images, classifier.eval()

    return make


def units(images):
    return np.arange(len(images))


def state(classifier):
    return {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}


def test_the_last_layer_is_scikit_learns_regression_on_the_features(classifier_of, toy):
    recipe, images, classifier = classifier_of()
    features = penultimate_features(classifier, images.images)
    before = state(classifier)
    fitted = fit_head(classifier, images, recipe, units(images), seed=0, **CPU)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=fitted.strength, max_iter=1000, tol=1e-8).fit(
        scaler.transform(features), images.labels
    )
    fresh = toy(60, seed=1)
    expected = model.decision_function(scaler.transform(penultimate_features(classifier, fresh.images)))
    logits = classifier.predict_logits(fresh.images)
    np.testing.assert_allclose(
        logits - logits.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=0.02
    )
    assert (fitted.strength in STRENGTHS, fitted.images, fitted.views) == (True, 96, 1)
    changed = {name for name, tensor in state(classifier).items() if not torch.equal(tensor, before[name])}
    assert changed == {"dense_1.weight", "dense_1.bias"}


def test_two_classes_give_opposite_rows(classifier_of, toy):
    recipe, images, classifier = classifier_of(images=foveola.ImageSet(
        toy(80).images, np.arange(80) % 2, ("even", "odd")
    ))  # fmt: skip
    fit_head(classifier, images, recipe, units(images), seed=0, **CPU)
    head = classifier.network.dense_1
    torch.testing.assert_close(head.weight[0], -head.weight[1])


def test_batch_normalisation_is_folded_without_changing_the_features(classifier_of):
    _, images, classifier = classifier_of()
    body = folded_body(classifier.network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in body.modules()) == 1  # after an activation
    with torch.no_grad():
        features = body(classifier.normalize(torch.from_numpy(images.images))).numpy()
    np.testing.assert_allclose(features, penultimate_features(classifier, images.images), atol=1e-5)


def test_views_are_the_images_and_changed_ones_and_repeatable(classifier_of):
    def weights(views, **augment):
        recipe, images, classifier = classifier_of(head_views=views, augment=augment)
        fit_head(classifier, images, recipe, units(images), seed=3, **CPU)
        return classifier.network.dense_1.weight.clone()

    torch.testing.assert_close(weights(1), weights(3), atol=2e-3, rtol=0)  # three equal views
    assert torch.equal(weights(3, shift=2), weights(3, shift=2))
    assert not torch.allclose(weights(3, shift=2), weights(1), atol=2e-3)


def test_copies_are_left_out_together(classifier_of, toy):
    """Noise with random labels: who looks at copies on the other side of a fold believes to know them."""
    generator = np.random.default_rng(0)
    noise = np.repeat(generator.integers(0, 256, (30, 6, 6, 1), dtype=np.uint8), 4, axis=0)
    labels = np.repeat(generator.integers(0, 3, 30), 4)
    images = foveola.ImageSet(noise, labels, toy(3).class_names)
    recipe, _, classifier = classifier_of(
        images=images, layers=[{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
    )
    apart = fit_head(classifier, images, recipe, np.arange(120), seed=0, **CPU)
    together = fit_head(classifier, images, recipe, np.repeat(np.arange(30), 4), seed=0, **CPU)
    assert apart.accuracy > 0.9
    assert together.accuracy < 0.7


@pytest.mark.parametrize(
    ("labels", "recordings", "validated"),
    [
        ([0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3], True),
        ([0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 2, 2, 2], False),
        ([0, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1], True),
        ([0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0], False),
    ],
    ids=["two of each class", "one of the second class", "two with both classes", "one in all"],
)
def test_few_recordings_make_fewer_folds_or_take_the_middle_strength(classifier_of, toy, labels, recordings, validated):
    """Four folds need four recordings, and whichever is left out, the others must show two classes."""
    images = foveola.ImageSet(toy(7).images, np.array(labels), ("cup", "glass"))
    recipe, _, classifier = classifier_of(images=images)
    fitted = fit_head(classifier, images, recipe, np.array(recordings), seed=0, **CPU)
    assert (fitted.accuracy is not None) == validated
    if not validated:
        assert fitted.strength == MIDDLE_STRENGTH
    assert np.isfinite(classifier.predict_logits(images.images)).all()


def test_networks_that_cannot_be_used_are_refused(classifier_of):
    recipe, images, classifier = classifier_of(layers=[*LAYERS, {"type": "Activation", "function": "tanh"}])
    with pytest.raises(RecipeError, match="last layer, which must be a Dense layer"):
        fit_head(classifier, images, recipe, units(images), seed=0, **CPU)


# Training after it


def test_validation_before_the_first_step_is_epoch_0(classifier_of, toy):
    recipe, images, classifier = classifier_of(epochs=2)
    history = History()
    fit(
        classifier, images, toy(30, seed=1), recipe, seed=0, callbacks=[history], **CPU,
        before=lambda: fit_head(classifier, images, recipe, units(images), seed=0, **CPU),
    )  # fmt: skip
    assert [row["epoch"] for row in history.rows] == [0, 1, 2]
    assert "loss" not in history.rows[0]
    assert history.rows[0]["val_accuracy"] > 0.5


def test_without_epochs_only_the_last_layer_changes(classifier_of, toy):
    recipe, images, classifier = classifier_of(epochs=0)
    before = state(classifier)
    result = fit(
        classifier, images, toy(30, seed=1), recipe, seed=0, **CPU,
        before=lambda: fit_head(classifier, images, recipe, units(images), seed=0, **CPU),
    )  # fmt: skip
    changed = {name for name, tensor in state(classifier).items() if not torch.equal(tensor, before[name])}
    assert (result.step, changed) == (0, {"dense_1.weight", "dense_1.bias"})


class Trainable(Callback):
    """Records which layers train at each step."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, fit):
        layers = fit.classifier.network.named_children()
        self.steps.append([name for name, layer in layers if any(p.requires_grad for p in layer.parameters())])


def test_layers_begin_to_train_from_the_last_to_the_first(classifier_of):
    recipe, images, classifier = classifier_of(
        epochs=3, batch_size=8, unfreeze=0.5, optimizer="adamw", weight_decay=0.1
    )
    for parameter in classifier.network.conv2d_2.parameters():
        parameter.requires_grad_(False)
    first = classifier.network.conv2d_1.weight.clone()
    trained, weights = Trainable(), []
    watch = Callback()
    watch.on_step_end = lambda fit: weights.append(torch.equal(fit.classifier.network.conv2d_1.weight, first))
    fit(classifier, images, None, recipe, seed=0, callbacks=[trained, watch], **CPU)
    names = ["conv2d_1", "batchnorm_1", "residual_1", "batchnorm_2", "dense_1"]  # conv2d_2 is frozen
    assert len(trained.steps) == 36
    assert trained.steps[0] == names[-1:]
    assert trained.steps[9] == names[-3:]
    assert trained.steps[17] == names[-4:]
    assert trained.steps[18:] == [names] * 18
    assert weights == [True] * 18 + [False] * 18  # neither weight decay nor momentum moves what is frozen


def test_learning_rates_grow_by_the_same_factor_from_layer_to_layer(classifier_of):
    recipe, _, classifier = classifier_of(first_layer_rate=0.01, learning_rate=0.1, optimizer="adamw")
    rates = {
        id(parameter): group.lr
        for optimizer in build_optimizers(classifier.network, recipe)
        for group in optimizer.groups
        for parameter in group.parameters
    }
    layers = [layer for layer in classifier.network.children() if list(layer.parameters())]
    found = [{rates[id(parameter)] for parameter in layer.parameters()} for layer in layers]
    assert [len(rates) for rates in found] == [1] * 6
    np.testing.assert_allclose([rates.pop() for rates in found], np.geomspace(0.001, 0.1, 6))
    assert len(rates) == len(list(classifier.network.parameters()))


def test_frozen_statistics_stay_while_the_weights_train(classifier_of):
    recipe, images, classifier = classifier_of(freeze_statistics=True)
    before = state(classifier)
    fit(classifier, images, None, recipe, seed=0, **CPU)
    changed = {name for name, tensor in state(classifier).items() if not torch.equal(tensor, before[name])}
    assert not any("running" in name for name in changed)
    assert {"batchnorm_1.weight", "conv2d_1.weight", "residual_1.layers.batchnorm_1.bias"} <= changed
