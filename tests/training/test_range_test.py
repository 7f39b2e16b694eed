"""The learning-rate range test: what it records, when it ends, and what it suggests."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveola.training.build import build_classifier
from foveola.training.find_rate import MAX_RATE, MIN_RATE, SMOOTHING, STEPS, RangeTest, range_test, smooth, suggest

CPU = torch.device("cpu")


def curve_of(recipe, images, seed=0, network=None):
    classifier = build_classifier(recipe, images, seed, network=network)
    return range_test(classifier, images, recipe, seed=seed, device=CPU, precision=torch.float32)


def test_losses_are_those_of_torchs_sgd_with_an_exponentially_growing_rate(recipe_of, toy):
    images = toy()
    recipe = recipe_of(optimizer="sgd", momentum=0.0, batch_size=len(images))
    found = curve_of(recipe, images)
    classifier = build_classifier(recipe, images, 0)
    x, labels = classifier.normalize(torch.from_numpy(images.images)), torch.from_numpy(images.labels)
    optimizer = torch.optim.SGD(classifier.network.parameters(), lr=1.0)
    losses = []
    for step in range(len(found.losses)):
        optimizer.param_groups[0]["lr"] = MIN_RATE * (MAX_RATE / MIN_RATE) ** (step / (STEPS - 1))
        assert found.learning_rates[step] == pytest.approx(optimizer.param_groups[0]["lr"])
        loss = F.cross_entropy(classifier.network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) > 100
    np.testing.assert_allclose(found.losses[:150], losses[:150], rtol=1e-4)  # later, rounding errors grow with the loss


def test_smoothing_is_a_mean_weighted_exponentially_by_age():
    losses = np.random.default_rng(0).uniform(size=30)
    expected = [np.average(losses[: n + 1], weights=SMOOTHING ** np.arange(n, -1, -1)) for n in range(30)]
    np.testing.assert_allclose(smooth(losses), expected)
    assert len(smooth(np.array([]))) == 0


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_the_loss_falls_and_diverges_and_the_suggestion_lies_below(recipe_of, toy, optimizer):
    layers = [
        {"type": "Conv2D", "filters": 4, "activation": "relu"},
        {"type": "Conv2D", "filters": 4, "activation": "relu"},
        {"type": "Flatten"},
        {"type": "Dense", "units": "classes"},
    ]
    recipe = recipe_of(optimizer=optimizer, layers=layers)
    found = curve_of(recipe, toy())
    assert len(found.learning_rates) == len(found.losses) == len(found.smoothed) <= STEPS
    assert found.smoothed[found.lowest] < 0.7 * found.smoothed[0]
    suggestion = suggest(found, recipe)
    assert suggestion == pytest.approx(found.learning_rates[found.lowest] / 10, rel=0.05)


def test_the_same_seed_gives_the_same_curve(recipe_of, toy):
    recipe = recipe_of(augment={"shift": 1})
    first, again, other = (curve_of(recipe, toy(), seed) for seed in (1, 1, 2))
    assert first.losses.tolist() == again.losses.tolist()
    assert first.losses[0] != other.losses[0]


class Scaled(torch.nn.Module):
    """A linear network whose logits are multiplied by a number from the 20th batch on."""

    def __init__(self, factor):
        super().__init__()
        self.linear, self.factor, self.calls = torch.nn.Linear(36, 3), factor, 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x.flatten(1)) * (self.factor if self.calls >= 20 else 1.0)


def test_a_loss_that_is_not_finite_ends_the_test(recipe_of, toy):
    found = curve_of(recipe_of(), toy(), network=Scaled(math.nan))
    assert found.diverged
    assert len(found.losses) == 19
    assert np.isfinite(found.losses).all()


def test_a_loss_that_grows_ends_the_test(recipe_of, toy):
    found = curve_of(recipe_of(), toy(), network=Scaled(1000.0))
    assert found.diverged
    assert len(found.losses) == 20


def test_frozen_layers_keep_their_weights(recipe_of, toy):
    layers = [{"type": "Conv2D", "filters": 4}, {"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
    recipe = recipe_of(layers=layers)
    classifier = build_classifier(recipe, toy(), 0)
    frozen = next(classifier.network.children()).requires_grad_(False)
    before = [parameter.clone() for parameter in frozen.parameters()]
    range_test(classifier, toy(), recipe, seed=0, device=CPU, precision=torch.float32)
    assert all(torch.equal(*pair) for pair in zip(before, frozen.parameters(), strict=True))


def made(smoothed):
    losses = np.array(smoothed)
    return RangeTest(np.geomspace(1e-4, 1.0, len(losses)), losses, losses, diverged=True)


def test_a_tenth_of_the_rate_with_the_lowest_loss_or_all_of_it_with_one_cycle(recipe_of):
    found = made([2.3, 2.0, 1.0, 3.0, 9.0])
    assert suggest(found, recipe_of()) == pytest.approx(0.001)
    assert suggest(found, recipe_of(schedule="cosine")) == pytest.approx(0.001)
    assert suggest(found, recipe_of(schedule="one-cycle")) == pytest.approx(0.01)


def test_nothing_is_suggested_if_the_loss_hardly_falls(recipe_of):
    assert suggest(made([2.3, 2.2, 2.1, 3.0]), recipe_of()) is None
    assert suggest(made([]), recipe_of()) is None
