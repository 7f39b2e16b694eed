"""The training loop: what it computes, in which order, and what the result depends on."""

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

import foveola
from foveola.errors import NonFiniteLoss
from foveola.images import Dataset, ImageSet
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback, History, ValidationMetric
from foveola.training.loop import choose_precision

NORMALIZED = [
    {"type": "Conv2D", "filters": 4, "padding": "same"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "Dropout", "rate": 0.2},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]
EVERY_AUGMENTATION = {"shift": 1, "rotation": 10, "zoom": 0.1, "cutout": 2, "mixup": 0.3}


def weights_of(classifier):
    return {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}


def equal_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


class Recorder(nn.Module):
    """A linear network that records the batches it is trained on."""

    def __init__(self, side=6, channels=1):
        super().__init__()
        self.linear = nn.Linear(side * side * channels, 3)
        self.batches = []

    def forward(self, x):
        if self.training:
            self.batches.append(x.detach().clone())
        return self.linear(x.flatten(1))


def numbered_images(n):
    """Images that can be told apart: all pixels of image i are i."""
    images = np.repeat(np.arange(n, dtype=np.uint8), 36).reshape(n, 6, 6, 1)
    return ImageSet(images, np.arange(n) % 3, ("a", "b", "c"))


def recorded_numbers(recorder):
    """The numbers of the images in each batch."""
    return [(255 * batch[:, 0, 0, 0]).round().int().tolist() for batch in recorder.batches]


# What is computed


def softmax_regression(data, steps, rate, weight, bias, update, smoothing=0.0, class_weights=None):
    """Softmax regression in float64 on full batches: the loss before each step, and the final weights."""
    x = data.images.reshape(len(data), -1) / 255
    k = len(data.class_names)
    class_weights = np.ones(k) if class_weights is None else class_weights
    target = np.eye(k)[data.labels] * (1 - smoothing) + smoothing / k
    target = target * class_weights / class_weights[data.labels].sum()
    losses = []
    for step in range(1, steps + 1):
        logits = x @ weight.T + bias
        logits = logits - logits.max(axis=1, keepdims=True)
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses.append(-(target * logarithms).sum())
        slope = np.exp(logarithms) * target.sum(axis=1, keepdims=True) - target
        weight, bias = update(step, rate, (weight, bias), (slope.T @ x, slope.sum(axis=0)))
    return losses, weight, bias


def adam(decay=0.0, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Adam (Kingma and Ba, 2015); with `decay`, AdamW (Loshchilov and Hutter, 2019), which decays matrices only."""
    first, second = [0.0, 0.0], [0.0, 0.0]

    def update(step, rate, values, slopes):
        result = []
        for i, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            value = value * (1 - rate * decay) if value.ndim == 2 else value
            first[i] = beta1 * first[i] + (1 - beta1) * slope
            second[i] = beta2 * second[i] + (1 - beta2) * slope**2
            change = first[i] / (1 - beta1**step) / (np.sqrt(second[i] / (1 - beta2**step)) + epsilon)
            result.append(value - rate * change)
        return result

    return update


def nesterov(momentum=0.9):
    """SGD with Nesterov momentum (Sutskever et al., 2013), in PyTorch's form."""
    speed = [0.0, 0.0]

    def update(step, rate, values, slopes):
        result = []
        for i, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            speed[i] = momentum * speed[i] + slope
            result.append(value - rate * (slope + momentum * speed[i]))
        return result

    return update


@pytest.mark.parametrize(
    ("settings", "update"),
    [
        ({"optimizer": "adam"}, adam()),
        ({"optimizer": "adamw", "weight_decay": 0.5, "beta2": 0.9}, adam(decay=0.5, beta2=0.9)),
        ({"optimizer": "sgd"}, nesterov()),
        ({"optimizer": "sgd", "label_smoothing": 0.2}, nesterov()),
        ({"optimizer": "sgd", "class_weights": "balanced", "label_smoothing": 0.1}, nesterov()),
        ({"optimizer": "sgd", "class_weights": "balanced"}, nesterov()),
    ],
)
def test_training_matches_a_float64_reference(settings, update, toy, recipe_of, train):
    data = toy(counts=(30, 12, 6))
    recipe = recipe_of(scaling="unit", batch_size=64, epochs=6, learning_rate=0.05, **settings)
    classifier = build_classifier(recipe, data, 0)
    weight, bias = (p.detach().double().numpy() for p in classifier.network.parameters())
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=data.labels)
    losses, weight, bias = softmax_regression(
        data, 6, 0.05, weight, bias, update, recipe.label_smoothing,
        balanced if recipe.class_weights == "balanced" else None,
    )  # fmt: skip
    history = History()
    train(recipe, data, classifier=classifier, callbacks=[history])
    assert [row["loss"] for row in history.rows] == pytest.approx(losses, rel=1e-4)
    np.testing.assert_allclose(classifier.network.dense_1.weight.detach(), weight, atol=1e-4)
    np.testing.assert_allclose(classifier.network.dense_1.bias.detach(), bias, atol=1e-4)


@pytest.mark.parametrize("mix", [0.7, 0.2])
def test_mixup_blends_the_losses_like_the_images(mix, recipe_of, train, monkeypatch):
    blended, order = [], torch.arange(9).roll(1)

    def blend(x, partners, weight):
        blended.append(x)
        return weight * x + (1 - weight) * partners

    module = importlib.import_module("foveola.training.step")
    monkeypatch.setattr(module, "draw_mixup", lambda alpha, size, device: (mix, order))
    monkeypatch.setattr(module, "mixup", blend)
    network, history = Recorder(), History()
    weight, bias = (p.detach().double().numpy().copy() for p in network.parameters())
    recipe = recipe_of(scaling="unit", batch_size=9, epochs=1, augment={"mixup": 0.4})
    train(recipe, numbered_images(9), network=network, callbacks=[history])
    x = blended[0].double().flatten(1).numpy()
    labels = np.round(255 * x[:, 0]).astype(int) % 3
    logits = (mix * x + (1 - mix) * x[order]) @ weight.T + bias
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -(mix * logarithms[range(9), labels] + (1 - mix) * logarithms[range(9), labels[order]]).mean()
    heavier = labels if mix > 0.5 else labels[order]
    assert history.rows[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert history.rows[0]["accuracy"] == pytest.approx((logits.argmax(axis=1) == heavier).mean())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_falls(precision, toy, recipe_of, train):
    history = History()
    recipe = recipe_of(layers=NORMALIZED, epochs=10)
    fit = train(recipe, toy(), toy(60, seed=1), precision=precision, callbacks=[history])
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] / 2
    assert history.rows[-1]["val_accuracy"] > 0.9
    assert all(parameter.dtype == torch.float32 for parameter in fit.classifier.parameters())
    assert not fit.classifier.training


def test_precisions_differ(toy, recipe_of, train):
    fits = [train(recipe_of(), toy(), precision=kind) for kind in (torch.float32, torch.bfloat16)]
    assert not equal_weights(*(weights_of(fit.classifier) for fit in fits))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_falls_on_a_gpu(precision, toy, recipe_of, train):
    history = History()
    recipe = recipe_of(layers=NORMALIZED, epochs=30, augment={"shift": 1, "cutout": 1})
    train(recipe, toy(), toy(60, seed=1), precision=precision, callbacks=[history], device="cuda")
    losses = [row["loss"] for row in history.rows]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2


def test_metrics_of_an_epoch_are_means_over_its_images(toy, recipe_of, train):
    data, validation = toy(50), toy(40, seed=1)
    recipe = recipe_of(learning_rate=1e-30, epochs=1)  # small enough to give all batches the same weights
    history = History()
    fit = train(recipe, data, validation, callbacks=[history])
    for images, prefix in ((data, ""), (validation, "val_")):
        logits = fit.classifier.predict_logits(images.images).astype(np.float64)
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -logarithms[np.arange(len(images)), images.labels].mean()
        assert history.rows[0][f"{prefix}loss"] == pytest.approx(loss, rel=1e-5)
        accuracy = np.mean(logits.argmax(axis=1) == images.labels)
        assert history.rows[0][f"{prefix}accuracy"] == pytest.approx(accuracy)


def test_balanced_class_weights_raise_the_recall_of_a_rare_class(recipe_of, train):
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [190, 10])
    images = generator.normal(100 + 12 * labels[:, None], 20, size=(200, 16)).clip(0, 255).astype(np.uint8)
    data = ImageSet(images.reshape(200, 4, 4, 1), labels, ("common", "rare"))
    recall = {}
    for weights in ("none", "balanced"):
        fit = train(recipe_of(class_weights=weights, epochs=15, batch_size=50), data)
        predicted = fit.classifier.predict_logits(data.images).argmax(axis=1)
        recall[weights] = (predicted[labels == 1] == 1).mean()
    assert recall["balanced"] > recall["none"] + 0.2


# Order and seeds


def test_the_order_of_an_epoch_is_a_permutation_by_seed_and_epoch(recipe_of, train):
    def orders(seed, epochs):
        network = Recorder()
        train(recipe_of(scaling="unit", batch_size=10, epochs=epochs), numbered_images(40), network=network, seed=seed)
        flat = np.array(recorded_numbers(network)).reshape(epochs, 40)
        return [tuple(order) for order in flat]

    first = orders(0, 3)
    assert all(sorted(order) == list(range(40)) for order in first)
    assert len(set(first)) == 3
    assert orders(0, 2) == first[:2]
    assert not set(orders(1, 3)) & set(first)


def test_random_batches_are_drawn_from_all_images(recipe_of, train):
    network = Recorder()
    recipe = recipe_of(scaling="unit", batches="random", steps_per_epoch=7, epochs=9, batch_size=10)
    fit = train(recipe, numbered_images(40), network=network)
    batches = recorded_numbers(network)
    assert (fit.step, fit.steps, fit.epoch) == (63, 63, 9)
    assert [len(batch) for batch in batches] == [10] * 63
    counts = np.bincount(np.concatenate(batches), minlength=40)
    assert counts.min() > 0
    assert counts.max() > counts.min()  # drawn with replacement
    assert counts.var() < 3 * counts.mean()


def test_random_batches_are_at_most_as_large_as_the_training_set(recipe_of, train):
    network = Recorder()
    train(recipe_of(batches="random", steps_per_epoch=2, batch_size=100), numbered_images(12), network=network)
    assert {len(batch) for batch in network.batches} == {12}


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [(12, 4, [4, 4, 4]), (14, 4, [4, 4, 4, 2]), (13, 4, [4, 4, 4]), (3, 8, [3]), (5, 1, [1] * 5)],
)
def test_the_last_batch_may_be_smaller_but_not_a_single_image(images, batch, sizes, recipe_of, train):
    network = Recorder()
    fit = train(recipe_of(batch_size=batch, epochs=2), numbered_images(images), network=network)
    assert [len(x) for x in network.batches] == 2 * sizes
    assert fit.steps_per_epoch == len(sizes)


def test_a_last_batch_of_one_image_is_dropped_for_batch_normalisation(toy, recipe_of, train):
    stack = [{"type": "Flatten"}, {"type": "BatchNorm"}, {"type": "Dense", "units": "classes"}]
    fit = train(recipe_of(layers=stack, batch_size=16), toy(33))
    assert fit.step == 4


@pytest.mark.parametrize(("minimum", "epochs"), [(0, 2), (6, 2), (7, 3), (20, 7)])
def test_epochs_are_added_until_the_minimum_of_steps(minimum, epochs, toy, recipe_of, train):
    fit = train(recipe_of(minimum_steps=minimum), toy(48))
    assert (fit.epochs, fit.epoch, fit.step) == (epochs, epochs, max(minimum, 6))


@pytest.mark.parametrize("augment", [{}, EVERY_AUGMENTATION])
def test_the_same_seed_gives_identical_weights(augment, toy, recipe_of, train):
    recipe = recipe_of(layers=NORMALIZED, augment=augment)
    first, again, other = (weights_of(train(recipe, toy(), seed=seed, flip=True).classifier) for seed in (4, 4, 5))
    assert equal_weights(first, again)
    assert not equal_weights(first, other)


def test_the_same_seed_gives_identical_weights_in_another_process(toy, recipe_of, train, tmp_path):
    recipe = recipe_of(layers=NORMALIZED, augment=EVERY_AUGMENTATION)
    expected = weights_of(train(recipe, toy(), seed=4, flip=True).classifier)
    np.savez(tmp_path / "toy.npz", images=toy().images, labels=toy().labels)
    (tmp_path / "toy.toml").write_text(recipe.to_toml(), "utf-8")
    code = (
        "import sys, numpy as np, torch\nfrom pathlib import Path\n"
        "from foveola.images import ImageSet\nfrom foveola.training.build import build_classifier\n"
        "from foveola.recipe import load_recipe\nfrom foveola.training.loop import fit\n"
        "folder = Path(sys.argv[1])\ndata = np.load(folder / 'toy.npz')\n"
        "train = ImageSet(data['images'], data['labels'], ('top', 'middle', 'bottom'))\n"
        "recipe = load_recipe(folder / 'toy.toml')\nclassifier = build_classifier(recipe, train, 4)\n"
        "fit(classifier, train, None, recipe, seed=4, device=torch.device('cpu'), precision=torch.float32, flip=True)\n"
        "np.savez(folder / 'weights.npz', **{n: t.numpy() for n, t in classifier.network.state_dict().items()})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    with np.load(tmp_path / "weights.npz") as file:
        weights = dict(file)
    assert set(weights) == set(expected)
    for name in weights:
        np.testing.assert_array_equal(weights[name], expected[name].numpy(), err_msg=name)


def test_random_draws_of_callbacks_do_not_change_the_result(toy, recipe_of, train):
    class Draw(Callback):
        def on_step_end(self, fit):
            torch.rand(3)
            np.random.default_rng().random()

        on_epoch_start = on_epoch_end = on_fit_start = on_step_end

    recipe = recipe_of(layers=NORMALIZED, augment=EVERY_AUGMENTATION)
    torch.manual_seed(1)
    plain = train(recipe, toy(), flip=True)
    torch.manual_seed(2)
    assert equal_weights(
        weights_of(plain.classifier), weights_of(train(recipe, toy(), callbacks=[Draw()], flip=True).classifier)
    )


def test_validation_images_do_not_change_the_result(toy, recipe_of, train):
    recipe = recipe_of(layers=NORMALIZED)
    with_it, without = train(recipe, toy(), toy(30, seed=1)), train(recipe, toy())
    assert equal_weights(weights_of(with_it.classifier), weights_of(without.classifier))
    assert "val_loss" not in without.metrics


def test_a_longer_training_starts_like_a_shorter_one(toy, recipe_of, train):
    weights_after = []

    class Remember(Callback):
        def on_epoch_end(self, fit):
            weights_after.append(weights_of(fit.classifier))

    settings = {"layers": NORMALIZED, "augment": EVERY_AUGMENTATION}
    train(recipe_of(epochs=3, **settings), toy(), callbacks=[Remember()])
    for epochs in (1, 2):
        short = train(recipe_of(epochs=epochs, **settings), toy())
        assert equal_weights(weights_of(short.classifier), weights_after[epochs - 1])


# Augmentation


@pytest.mark.parametrize("flip", [True, False])
def test_the_flip_argument_decides_about_flips(flip, recipe_of, train):
    ramp = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None] * 40, (24, 6, 6, 1)).copy()
    data = ImageSet(ramp, np.arange(24) % 3, ("a", "b", "c"))
    network = Recorder()
    # the loop ignores the recipe's setting, which depends on the data set
    train(recipe_of(scaling="unit", augment={"flip": not flip}), data, network=network, flip=flip)
    rises = torch.cat(network.batches)[:, 0, 0, 0] < 0.5
    assert (~rises).any() == flip
    assert rises.any()


@pytest.mark.parametrize("batch_size", [5, 24])
def test_two_epochs_show_every_image_both_ways(batch_size, recipe_of, train):
    images = np.zeros((24, 6, 6, 1), np.uint8)
    images[:, 0, 0], images[:, 1:] = 250, np.arange(24)[:, None, None, None]  # a mark at the left, and a number
    data, network = ImageSet(images, np.arange(24) % 3, ("a", "b", "c")), Recorder()
    train(recipe_of(scaling="unit", epochs=4, batch_size=batch_size), data, network=network, flip=True)
    seen = (torch.cat(network.batches)[:, 0] * 255).round().int()
    epochs = [{int(image[1, 0]): bool(image[0, 0] == 0) for image in epoch} for epoch in seen.split(24)]
    assert all(len(epoch) == 24 for epoch in epochs)
    assert epochs[0] == epochs[2] and epochs[1] == epochs[3]
    assert all(epochs[0][number] != epochs[1][number] for number in range(24))
    assert 4 < sum(epochs[0].values()) < 20


@pytest.mark.parametrize(
    ("setting", "flip_safe", "expected"),
    [("auto", False, False), ("auto", True, True), (True, False, True), (False, True, False)],
)
def test_a_run_flips_only_data_that_is_flip_safe_unless_told(setting, flip_safe, expected, toy, recipe_of, tmp_path):
    data, recipe = Dataset("toy", toy(), flip_safe=flip_safe), recipe_of(augment={"flip": setting}, epochs=9)
    run = foveola.train(data, recipe, out=tmp_path / "run", report=False, verbose=False)
    assert run.status.flip is expected


def test_augmentation_is_a_function_of_seed_and_step(recipe_of, train):
    def trained_batches(seed, epochs):
        network = Recorder()
        recipe = recipe_of(scaling="unit", epochs=epochs, batch_size=24, augment=EVERY_AUGMENTATION)
        train(recipe, numbered_images(24), network=network, seed=seed, flip=True)
        return network.batches

    first = trained_batches(0, 3)
    assert all(torch.equal(a, b) for a, b in zip(trained_batches(0, 2), first, strict=False))
    assert not torch.equal(trained_batches(1, 1)[0], first[0])


def test_every_step_draws_new_changes(recipe_of, train):
    ramp = np.broadcast_to(np.arange(36, dtype=np.uint8).reshape(6, 6, 1), (24, 6, 6, 1)).copy()
    data = ImageSet(ramp, np.arange(24) % 3, ("a", "b", "c"))  # all the same, whatever their order
    network = Recorder()
    train(recipe_of(epochs=3, batch_size=12, augment={"shift": 3}), data, network=network)
    assert len({batch.numpy().tobytes() for batch in network.batches}) == 6


# Divergence


class Diverging(nn.Module):
    """In batch number `bad`, NaN passes through batch normalisation."""

    def __init__(self, bad):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(36, 3)
        self.bad, self.count = bad, 0

    def forward(self, x):
        self.count += self.training
        x = self.norm(x * math.nan if self.count == self.bad else x)
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(("bad", "epoch"), [(1, 1), (3, 1), (5, 2)])
def test_a_nan_loss_stops_training_before_the_weights_change(bad, epoch, toy, recipe_of, train):
    network, snapshots = Diverging(bad), []

    class Remember(Callback):
        def on_fit_start(self, fit):
            snapshots.append(weights_of(fit.classifier))

        on_step_end = on_fit_start

    recipe = recipe_of(learning_rate=0.02)
    with pytest.raises(NonFiniteLoss, match=rf"epoch {epoch}, step {bad}, the loss .*learning rate 0\.02.*=0\.002$"):
        train(recipe, toy(), network=network, callbacks=[Remember()])
    assert len(snapshots) == bad
    assert equal_weights(dict(network.state_dict()), snapshots[-1])


def test_a_learning_rate_that_is_far_too_high_leaves_finite_weights(toy, recipe_of, train):
    recipe = recipe_of(layers=NORMALIZED, learning_rate=1e30)
    classifier = build_classifier(recipe, toy(), 0)
    with pytest.raises(NonFiniteLoss, match=r"learning rate 1e\+30"):
        train(recipe, toy(), classifier=classifier)
    assert all(tensor.isfinite().all() for tensor in classifier.network.state_dict().values())


def test_an_infinite_gradient_of_a_finite_loss_stops_training(toy, recipe_of, train):
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(36, 3)

        def forward(self, x):
            logits = self.linear(x.flatten(1))
            return logits + (logits - logits.detach()).abs().sqrt()  # zero, with an infinite slope

    network = Steep()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NonFiniteLoss, match="the gradient of the loss was not finite"):
        train(recipe_of(), toy(), network=network)
    assert equal_weights(dict(network.state_dict()), before)


# Frozen layers


def test_frozen_parameters_and_statistics_do_not_change(toy, recipe_of, train):
    recipe = recipe_of(layers=NORMALIZED)
    classifier = build_classifier(recipe, toy(), 0)
    for layer in (classifier.network.conv2d_1, classifier.network.batchnorm_1):
        layer.requires_grad_(False)
    before = weights_of(classifier)
    train(recipe, toy(), classifier=classifier)
    for name, tensor in weights_of(classifier).items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("dense")), name


# Callbacks


class Log(Callback):
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def _log(self, when, fit):
        self.calls.append((self.name, when, fit.epoch, fit.step))

    def on_fit_start(self, fit):
        self._log("fit start", fit)

    def on_epoch_start(self, fit):
        self._log("epoch start", fit)

    def on_step_end(self, fit):
        self._log("step", fit)

    def on_epoch_end(self, fit):
        self._log("epoch end", fit)

    def on_fit_end(self, fit):
        self._log("fit end", fit)


def test_callbacks_are_called_in_the_order_of_their_list(toy, recipe_of, train):
    calls = []
    train(recipe_of(batch_size=24), toy(48), callbacks=[Log("a", calls), Log("b", calls)])
    expected = [
        ("fit start", 0, 0),
        ("epoch start", 1, 0), ("step", 1, 1), ("step", 1, 2), ("epoch end", 1, 2),
        ("epoch start", 2, 2), ("step", 2, 3), ("step", 2, 4), ("epoch end", 2, 4),
        ("fit end", 2, 4),
    ]  # fmt: skip
    assert calls == [(name, *call) for call in expected for name in "ab"]


@pytest.mark.parametrize("when", ["on_epoch_start", "on_step_end", "on_epoch_end"])
def test_a_callback_stops_training_after_its_epoch(when, toy, recipe_of, train):
    def stop(fit):
        fit.stop = fit.stop or fit.epoch == 2

    calls, stopper = [], Callback()
    setattr(stopper, when, stop)
    fit = train(recipe_of(epochs=9), toy(48), callbacks=[stopper, Log("a", calls)])
    assert (fit.epoch, fit.step, fit.best_epoch) == (2, 6, 2)
    assert calls[-1] == ("a", "fit end", 2, 6)


def test_validation_images_are_predicted_once_an_epoch(toy, recipe_of, train, monkeypatch):
    recipe, validation = recipe_of(epochs=3), toy(30, seed=1)
    classifier = build_classifier(recipe, toy(), 0)
    predict, counts = classifier.predict_logits, []
    monkeypatch.setattr(classifier, "predict_logits", lambda images: counts.append(len(images)) or predict(images))
    metrics = [ValidationMetric(name, lambda predictions: float(len(predictions))) for name in ("val_a", "val_b")]
    fit = train(recipe, toy(), validation, classifier=classifier, callbacks=metrics)
    assert counts == [30, 30, 30]
    assert (fit.metrics["val_a"], fit.metrics["val_b"]) == (30, 30)


def test_validation_predictions_need_validation_images(toy, recipe_of, train):
    with pytest.raises(ValueError, match="no validation images"):
        train(recipe_of(), toy(), callbacks=[ValidationMetric("val_a", len)])


# Precision


def test_a_named_precision_is_used():
    assert choose_precision("float32", torch.device("cpu")) == torch.float32
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_auto_is_bf16_if_the_processor_computes_in_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", torch.device("cpu")) == expected
