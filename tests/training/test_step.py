"""Training steps: a deferred one, as on a GPU, against one that checks its loss at once; both run on the CPU."""

import pytest
import torch

from foveola.errors import NonFiniteLoss
from foveola.training.build import build_classifier
from foveola.training.loop import class_weights
from foveola.training.step import TrainStep

NORMALIZED = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "bias": False},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "Conv2D", "filters": 8, "padding": "same"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]
STEPS = 6


@pytest.fixture
def start(toy, recipe_of):
    """Function that makes a TrainStep on all toy images, always with the same initial weights."""

    def make(optimizer="muon", deferred=None, network=None):
        data = toy()
        recipe = recipe_of(layers=NORMALIZED, optimizer=optimizer, learning_rate=0.02)
        classifier = build_classifier(recipe, data, 0, network=network)
        classifier.train()
        images, labels = torch.from_numpy(data.images.copy()), torch.from_numpy(data.labels)
        return TrainStep(
            classifier, images, labels, recipe, precision=torch.float32, flip_first=None, class_weights=None,
            steps=STEPS, steps_per_epoch=3, deferred=deferred,
        )  # fmt: skip

    return make


def state(step):
    return {name: tensor.clone() for name, tensor in step.classifier.network.state_dict().items()}


def batches():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(48, (16,), generator=generator) for _ in range(STEPS)]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
def test_a_deferred_step_computes_the_same(start, optimizer):
    immediate, deferred = start(optimizer), start(optimizer, deferred=True)
    assert not immediate.deferred
    for indices in batches():
        immediate(indices, 0.5)
        deferred.train_batch(indices, torch.tensor(0.5))  # a tensor, as a captured graph reads it
    assert immediate.epoch_metrics() == pytest.approx(deferred.epoch_metrics())
    expected = state(immediate)
    for name, tensor in state(deferred).items():
        torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
def test_after_a_nonfinite_loss_deferred_steps_change_nothing_and_the_metrics_raise(start, optimizer):
    step = start(optimizer, deferred=True)
    first, second, *rest = batches()
    step(first, 1.0)
    step(second, 1.0)
    kept = state(step)
    step.classifier.mean.fill_(torch.nan)  # this step normalises its images to NaN
    step(rest[0], 1.0)
    step.classifier.mean.zero_()
    step(rest[1], 1.0)
    after = state(step)
    assert all(torch.equal(after[name], kept[name]) for name in kept)
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step 3, the loss was not finite"):
        step.epoch_metrics()


def test_reading_the_metrics_resets_them(start):
    step, (indices, *_) = start("adam"), batches()
    step(indices, 0.0)
    first = step.epoch_metrics()
    step(indices, 0.0)
    assert step.epoch_metrics()[0] == pytest.approx(first[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
def test_a_captured_graph_computes_the_same(toy, recipe_of):
    data, steps = toy(), []
    for capture in (True, False):
        recipe = recipe_of(layers=NORMALIZED, optimizer="muon", learning_rate=0.02)
        classifier = build_classifier(recipe, data, 0).cuda()
        classifier.train()
        step = TrainStep(
            classifier, torch.from_numpy(data.images.copy()).cuda(), torch.from_numpy(data.labels).cuda(), recipe,
            precision=torch.float32, flip_first=None, class_weights=None, steps=STEPS, steps_per_epoch=3,
        )  # fmt: skip
        if not capture:
            step.run = step.train_batch
        for indices in batches():
            step(indices.cuda(), 0.5)
        steps.append(step)
    assert steps[0].run.graph is not None
    assert steps[0].epoch_metrics() == pytest.approx(steps[1].epoch_metrics(), rel=1e-4)
    expected = state(steps[1])
    for name, tensor in state(steps[0]).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


# Weights of images


@pytest.fixture
def gradients(toy, recipe_of):
    """Function that gives the loss of one batch, and its gradients, without an update."""

    def compute(indices, *, image_weights=None, size=1, **settings):
        data = toy()
        recipe = recipe_of(layers=NORMALIZED[3:], optimizer="sgd", learning_rate=1.0, **settings)
        classifier = build_classifier(recipe, data, 0)
        images, labels = torch.from_numpy(data.images.copy()), torch.from_numpy(data.labels)
        step = TrainStep(
            classifier, images, labels, recipe, precision=torch.float32, flip_first=None,
            class_weights=class_weights(data, recipe, torch.device("cpu")), image_weights=image_weights,
            steps=STEPS, steps_per_epoch=3,
        )  # fmt: skip
        loss, correct = step._forward(indices)
        loss.backward()
        return loss.item(), correct.item(), [parameter.grad.clone() for parameter in step.parameters]

    return compute


@pytest.mark.parametrize(
    "settings",
    [{}, {"label_smoothing": 0.1}, {"class_weights": "balanced"}, {"augment": {"mixup": 0.4}}],
    ids=["plain", "smoothing", "class weights", "mixup"],
)
def test_weights_of_whole_numbers_are_copies_of_images(gradients, settings):
    indices = torch.tensor([0, 1, 2, 4, 5, 9])
    times = torch.tensor([1, 3, 0, 2, 1, 1])
    weights = torch.zeros(48).index_put((indices,), times.float())
    if "augment" in settings:  # which images are blended hangs on their number
        times = torch.ones(6, dtype=torch.int64)
        weights = torch.full((48,), 2.5)
    torch.manual_seed(0)
    copies = gradients(indices.repeat_interleave(times), **settings)
    torch.manual_seed(0)
    weighted = gradients(indices, image_weights=weights, **settings)
    assert weighted[0] == pytest.approx(copies[0])
    for ours, theirs in zip(weighted[2], copies[2], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_that_weighs_nothing_teaches_nothing(gradients):
    loss, correct, found = gradients(torch.tensor([0, 1, 2]), image_weights=torch.zeros(48))
    assert (loss, correct) == (0.0, 0.0)
    assert not any(gradient.any() for gradient in found)
