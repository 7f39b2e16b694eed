"""Grad-CAM agrees with its closed form and with finite differences."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveola.errors import DataError, ModelError
from foveola.explanation.activations import first_filters
from foveola.explanation.grad_cam import grad_cam

CONVOLUTION = {"type": "Conv2D", "filters": 6, "padding": "same", "activation": "relu"}
NORMALISED = (
    {"type": "Conv2D", "filters": 6, "padding": "same"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
)
DENSE = ({"type": "Flatten"}, {"type": "Dense", "units": 8, "activation": "relu"})
CLASSES = np.array([2, 0, 1])


def planes(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def scale_to_one(maps):
    """Each map divided by its maximum."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def test_before_global_average_pooling_it_is_the_class_activation_map(classifier, images):
    """Zhou et al. (2016): the gradient of a logit is then the dense layer's weight, the same at every pixel."""
    model = classifier(CONVOLUTION, {"type": "GlobalAveragePool2D"})
    given = images()
    with torch.no_grad():
        convolution, dense = model.network.conv2d_1, model.network.dense_1
        maps = F.relu(F.conv2d(planes(given), convolution.weight, convolution.bias, padding=1))
        expected = torch.einsum("nk,nkhw->nhw", dense.weight[CLASSES], maps).clamp(min=0).numpy()
    cams = grad_cam(model, given, CLASSES)
    assert (cams.shape, cams.dtype) == ((3, 8, 10), np.float32)
    assert cams.max() > 0
    np.testing.assert_allclose(cams, scale_to_one(expected), atol=1e-5)


def test_maps_are_taken_after_normalisation_and_activation_before_pooling(classifier, images):
    model, given = classifier(*NORMALISED).eval(), images()
    network = model.network
    maps = network.activation_1(network.batchnorm_1(network.conv2d_1(planes(given)))).detach().requires_grad_()
    logits = network.dense_1(network.flatten_1(network.maxpool2d_1(maps)))
    (gradients,) = torch.autograd.grad(logits[range(3), CLASSES].sum(), maps)
    expected = (gradients.mean((2, 3), keepdim=True) * maps).sum(1).clamp(min=0).detach().numpy()
    np.testing.assert_allclose(grad_cam(model, given, CLASSES), scale_to_one(expected), atol=1e-5)


def test_weights_are_the_mean_gradients_by_finite_differences(classifier, images):
    """The layers after the maps are smooth, so central differences in float64 need no automatic differentiation."""
    smooth = {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "tanh"}
    hidden = {"type": "Dense", "units": 8, "activation": "gelu"}
    model = classifier(smooth, {"type": "AveragePool2D"}, {"type": "Flatten"}, hidden).eval()
    image, label, step = images(1), 1, 1e-4
    expected = np.zeros((1, 8, 10))
    with torch.no_grad():
        maps = model.network.conv2d_1(planes(image)).double()
        head = copy.deepcopy(model.network[1:]).double()
        for channel in maps[0]:
            gradients = np.zeros((8, 10))
            for row, column in np.ndindex(8, 10):
                original = channel[row, column].item()
                channel[row, column] = original + step
                above = head(maps)[0, label].item()
                channel[row, column] = original - step
                gradients[row, column] = (above - head(maps)[0, label].item()) / (2 * step)
                channel[row, column] = original
            expected[0] += gradients.mean() * channel.numpy()
    expected = expected.clip(min=0)
    assert expected.max() > 0
    np.testing.assert_allclose(grad_cam(model, image, np.array([label])), scale_to_one(expected), atol=1e-5)


def test_small_maps_are_enlarged_and_cropped_to_the_image(classifier, images):
    coarse = {"type": "Conv2D", "filters": 6, "stride": 2, "kernel": 3, "padding": "same", "activation": "relu"}
    model = classifier(coarse, {"type": "GlobalAveragePool2D"}, pad=2)
    with torch.no_grad():
        maps = model.network.conv2d_1(F.pad(planes(images()), (2, 2, 2, 2)))
        weighted = torch.einsum("nk,nkhw->nhw", model.network.dense_1.weight[CLASSES], maps).clamp(min=0)
        expected = F.interpolate(weighted[None], (12, 14), mode="bilinear")[0, :, 2:-2, 2:-2].numpy()
    assert maps.shape[2:] == (6, 7)
    np.testing.assert_allclose(grad_cam(model, images(), CLASSES), scale_to_one(expected), atol=1e-5)


def test_maps_have_the_size_of_the_images(classifier, images):
    assert grad_cam(classifier(*NORMALISED), images(2, 20, 16), CLASSES[:2]).shape == (2, 20, 16)


def test_where_nothing_speaks_for_the_class_the_map_is_zero(classifier, images):
    model = classifier(CONVOLUTION, {"type": "GlobalAveragePool2D"})
    with torch.no_grad():
        model.network.dense_1.weight[0] = -1
    assert (grad_cam(model, images(1), np.array([0])) == 0).all()


def test_frozen_weights_can_be_explained(classifier, images):
    model = classifier(*NORMALISED)
    expected = grad_cam(model, images(), CLASSES)
    np.testing.assert_array_equal(grad_cam(model.requires_grad_(False), images(), CLASSES), expected)


def test_networks_without_a_convolution_are_refused(classifier, images):
    model = classifier(*DENSE)
    with pytest.raises(ModelError, match=r"Grad-CAM is not possible.*occlusion"):
        grad_cam(model, images(), CLASSES)
    with pytest.raises(ModelError, match="no filters"):
        first_filters(model)


def test_the_model_stays_unchanged(classifier, images, state_of):
    model = classifier(*NORMALISED).train()
    model.network.batchnorm_1.eval()  # differs from the mode of the network
    before = state_of(model)
    grad_cam(model, images(), CLASSES)
    assert state_of(model) == before
    model.network.dense_1.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        grad_cam(model, images(), CLASSES)
    assert state_of(model) == before


@pytest.mark.parametrize("classes", [[0, 1, 3], [-1, 0, 0], [0, 1]])
def test_classes_must_be_one_valid_index_for_each_image(classifier, images, classes):
    with pytest.raises(DataError, match="each of the 3 images a class, as a number from 0 to 2"):
        grad_cam(classifier(*NORMALISED), images(), np.array(classes))
