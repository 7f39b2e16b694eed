"""Learning from a teacher: the loss against NumPy, and its place in a step."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from foveola.models.batch_part import BatchPart
from foveola.training.build import build_classifier
from foveola.training.distill import distillation_loss, teacher_logits
from foveola.training.step import TrainStep


def logits(seed, n=16, k=3):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (n, k)).astype(np.float32))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_the_divergence_of_softened_probabilities(temperature):
    student, teacher = logits(0), logits(1)
    p, q = (log_softmax(x.double().numpy() / temperature, axis=1) for x in (teacher, student))
    expected = temperature**2 * (np.exp(p) * (p - q)).sum()
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-5)


def test_a_high_temperature_compares_centered_logits():
    """Hinton et al. (2015), section 2.1: the gradient becomes that of half the squared difference, over K."""
    student, teacher = (x - x.mean(1, keepdim=True) for x in (logits(0), logits(1)))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, 1000.0), student)
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 3, rtol=0.02, atol=0.01)


def test_teacher_logits_are_those_of_its_predictions(toy, recipe_of):
    data = toy(300)
    teacher = build_classifier(recipe_of(), data, 1)
    teacher.train()
    found = teacher_logits(teacher, data.images, torch.device("cpu"), torch.float32)
    assert (found.dtype, found.requires_grad) == (torch.float16, False)
    np.testing.assert_allclose(found, teacher.predict_logits(data.images), rtol=1e-3, atol=1e-3)
    assert teacher.training
    rounded = teacher_logits(teacher, data.images, torch.device("cpu"), torch.bfloat16)
    np.testing.assert_allclose(rounded, found, atol=0.1)


@pytest.fixture
def loss_of(toy, recipe_of):
    """Function that gives the loss of a first batch, by weight and temperature, of the whole batch or a part."""

    def make(distill, teacher, mixup=0.0, part=None):
        data = toy()
        recipe = recipe_of(distill=distill, augment={"mixup": mixup})
        step = TrainStep(
            build_classifier(recipe, data, 0).train(), torch.from_numpy(data.images.copy()),
            torch.from_numpy(data.labels), recipe, precision=torch.float32, flip_first=None, class_weights=None,
            steps=3, steps_per_epoch=3, teacher_logits=teacher,
        )  # fmt: skip
        if part is not None:
            step.processes = Half(part)
        torch.manual_seed(0)
        loss, _ = step._forward(torch.arange(16))
        return loss.item(), step

    return make


class Half:
    """Stands for a process that computes a part of every batch."""

    size = 2

    def __init__(self, rows):
        self.rows = rows

    def part(self, size):
        return BatchPart(size, self.rows)


def test_weight_0_is_without_a_teacher_and_weight_1_without_labels(loss_of):
    teacher = logits(2, 48)
    alone, step = loss_of({}, None)
    assert loss_of({"weight": 0.0}, teacher)[0] == alone
    student = torch.from_numpy(step.classifier.predict_logits(step.images[:16].numpy()))
    taught = float(distillation_loss(student, teacher[:16], 2.0)) / 16
    assert loss_of({"weight": 1.0, "temperature": 2.0}, teacher)[0] == pytest.approx(taught, rel=1e-5)
    half, _ = loss_of({"weight": 0.5, "temperature": 2.0}, teacher)
    assert half == pytest.approx((alone + taught) / 2, rel=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_parts_of_a_batch_add_up_to_the_whole(loss_of, mixup):
    teacher = logits(2, 48)
    whole, _ = loss_of({}, teacher, mixup)
    parts = [loss_of({}, teacher, mixup, part)[0] for part in (slice(0, 7), slice(7, 16))]
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_a_student_learns_from_its_teacher_alone(toy, recipe_of):
    """Without labels, a student comes to predict what the teacher does, also where that is wrong."""
    from foveola.training.loop import fit

    data = toy(96)
    wrong = torch.nn.functional.one_hot((torch.from_numpy(data.labels) + 1) % 3, 3) * 8.0
    recipe = recipe_of(epochs=40, distill={"weight": 1.0})
    student = build_classifier(recipe, data, 0)
    fit(student, data, None, recipe, seed=0, device=torch.device("cpu"), precision=torch.float32, teacher_logits=wrong)
    assert (student.predict_logits(data.images).argmax(1) == (data.labels + 1) % 3).mean() > 0.95
