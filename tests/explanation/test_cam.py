"""HiResCAM is complete; both methods agree with closed forms, finite differences and float64 references."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveola.errors import DataError, ModelError, UserError
from foveola.explanation.activations import first_filters
from foveola.explanation.cam import class_activation_maps, enlarge_maps
from foveola.images import letterbox_place
from foveola.inputs.resize import letterbox
from foveola.models.classifier import Classifier
from foveola.models.metadata import ModelMetadata

CONVOLUTION = {"type": "Conv2D", "filters": 6, "padding": "same", "activation": "relu"}
FLATTEN = {"type": "Flatten"}
NORMALISED = (
    {"type": "Conv2D", "filters": 6, "padding": "same"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "MaxPool2D"},
    FLATTEN,
)
DENSE = (FLATTEN, {"type": "Dense", "units": 8, "activation": "relu"})
CLASSES = np.array([2, 0, 1])

# Everything between the last feature maps and the last dense layer: the maps' shape, and the layers
EXACT_HEADS = {
    "flatten": ((8, 10), (CONVOLUTION, FLATTEN)),
    "linear convolution": ((8, 10), ({**CONVOLUTION, "activation": "linear"}, FLATTEN)),
    "max pooling": ((8, 10), (CONVOLUTION, {"type": "MaxPool2D"}, FLATTEN)),
    "normalisation, ReLU, pooling": ((8, 10), NORMALISED),
    "pooling before normalisation": (
        (4, 5),
        (
            {"type": "Conv2D", "filters": 6, "padding": "same", "bias": False},
            {"type": "MaxPool2D"},
            {"type": "BatchNorm"},
            {"type": "Activation", "function": "relu"},
            FLATTEN,
        ),
    ),
    "pooling, dropout": ((8, 10), (CONVOLUTION, {"type": "MaxPool2D"}, {"type": "Dropout", "rate": 0.5}, FLATTEN)),
    "padded pooling": ((8, 10), (CONVOLUTION, {"type": "AveragePool2D", "size": 3, "padding": "same"}, FLATTEN)),
    "global average pooling": ((8, 10), (CONVOLUTION, {"type": "GlobalAveragePool2D"})),
    "global max pooling": ((8, 10), (CONVOLUTION, {"type": "GlobalMaxPool2D"})),
    "two poolings": ((8, 10), (CONVOLUTION, {"type": "MaxPool2D"}, {"type": "GlobalAveragePool2D"})),
    "tanh before the maps": ((8, 10), ({**CONVOLUTION, "activation": "tanh"}, {"type": "MaxPool2D"}, FLATTEN)),
}  # fmt: skip


def planes(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def heat(model, images, classes, method="hires-cam"):
    return enlarge_maps(model, class_activation_maps(model, images, classes, method), images.shape[1:3])


def scale_to_one(maps):
    """Each map divided by its largest magnitude."""
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)


def biases(model, classes):
    return model.network[-1].bias.detach().numpy()[classes] / model.metadata.temperature


# HiResCAM


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("head", EXACT_HEADS)
def test_before_one_dense_layer_a_map_adds_up_to_the_logit_minus_its_bias(classifier, images, head, temperature):
    shape, layers = EXACT_HEADS[head]
    model, given = classifier(*layers, temperature=temperature), images()
    maps = class_activation_maps(model, given, CLASSES)
    assert (maps.shape, maps.dtype) == ((3, *shape), np.float32)
    logits = model.predict_logits(given)[range(3), CLASSES]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits - biases(model, CLASSES), rtol=1e-4, atol=1e-5)


def test_before_flattening_it_is_the_dense_weights_times_the_maps(classifier, images):
    """In NumPy and float64, without automatic differentiation."""
    model, given = classifier(CONVOLUTION, FLATTEN).eval(), images()
    with torch.no_grad():
        maps = model.network.conv2d_1(planes(given)).permute(0, 2, 3, 1).double().numpy()
    weights = model.network.dense_1.weight.detach().double().numpy().reshape(3, 8, 10, 6)
    expected = (weights[CLASSES] * maps).sum(axis=3)
    assert (expected < 0).any()
    np.testing.assert_allclose(class_activation_maps(model, given, CLASSES), expected, atol=1e-5)


def test_a_pixel_that_max_pooling_drops_has_no_part_in_it(classifier, images):
    model, given = classifier(CONVOLUTION, {"type": "MaxPool2D"}, FLATTEN).eval(), images(1)
    weights = model.network.dense_1.weight.detach().double().numpy().reshape(3, 4, 5, 6)
    with torch.no_grad():
        maps = model.network.conv2d_1(planes(given))[0].permute(1, 2, 0).double().numpy()
    expected = np.zeros((8, 10))
    for row, column, channel in np.ndindex(4, 5, 6):
        window = maps[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
        y, x = np.unravel_index(window.argmax(), (2, 2))
        expected[2 * row + y, 2 * column + x] += weights[1, row, column, channel] * window[y, x]
    np.testing.assert_allclose(class_activation_maps(model, given, np.array([1]))[0], expected, atol=1e-5)


def test_hidden_dense_layers_leave_what_their_active_biases_contribute(classifier, images):
    """A ReLU network is linear around an image: its logit is the sum of the map and the biases' way to the logit."""
    hidden = {"type": "Dense", "units": 8, "activation": "relu"}
    model, given = classifier(CONVOLUTION, {"type": "MaxPool2D"}, FLATTEN, hidden, hidden), images()
    network = copy.deepcopy(model.network).double().eval()
    first, second, last = network.dense_1, network.dense_2, network.dense_3
    with torch.no_grad():
        flat = network[:3](planes(given).double())
        one = first(flat) > 0
        two = second(first(flat)) > 0
        through = ((last.weight[CLASSES] * two) @ second.weight * one) @ first.bias
        through += (last.weight[CLASSES] * two) @ second.bias + last.bias[CLASSES]
        expected = (network(planes(given).double())[range(3), CLASSES] - through).numpy()
    assert through.abs().min() > 1e-3
    maps = class_activation_maps(model, given, CLASSES)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["hires-cam", "grad-cam"])
def test_gradients_agree_with_finite_differences(classifier, images, method):
    """The layers after the maps are smooth, so central differences in float64 need no automatic differentiation."""
    smooth = {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "tanh"}
    hidden = {"type": "Dense", "units": 8, "activation": "gelu"}
    model = classifier(smooth, {"type": "AveragePool2D"}, FLATTEN, hidden).eval()
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
            expected[0] += (gradients if method == "hires-cam" else gradients.mean()) * channel.numpy()
    expected = expected if method == "hires-cam" else expected.clip(min=0)
    assert expected.max() > 0
    np.testing.assert_allclose(class_activation_maps(model, image, np.array([label]), method), expected, atol=1e-5)


def test_where_grad_cam_is_zero_hires_cam_finds_the_evidence(classifier, images):
    """A dense layer with weights of both signs in one channel: their mean hides the positive ones."""
    model, given = classifier(CONVOLUTION, FLATTEN), images(1)
    with torch.no_grad():
        weight = model.network.dense_1.weight.view(3, 8, 10, 6)
        weight[0] = -1
        weight[0, 2:4, 3:5] = 5
    label = np.array([0])
    assert not class_activation_maps(model, given, label, "grad-cam").any()
    (evidence,) = class_activation_maps(model, given, label)
    positive = np.zeros((8, 10), bool)
    positive[2:4, 3:5] = True
    assert (evidence[positive] >= 0).all() and evidence[positive].max() > 0
    assert (evidence[~positive] <= 0).all()


# Networks of the user's own


class Residual(nn.Module):
    """A block whose sum and ReLU are the output of no innermost module."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(x + self.norm(self.convolution(x)))


class InPlace(Residual):
    def forward(self, x):
        out = self.norm(self.convolution(x))
        out += x
        return F.relu_(out)


class Unused(Residual):
    """Its last convolution has no effect on the logits."""

    def __init__(self):
        super().__init__()
        self.side = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        out = super().forward(x)
        self.side(out)
        return F.max_pool2d(out, 2)


@pytest.mark.parametrize(
    ("block", "end", "shape"),
    [
        (Residual(), nn.AvgPool2d(2), (8, 10)),
        (Residual(), nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.5), nn.Identity()), (8, 10)),
        (InPlace(), nn.AdaptiveAvgPool2d((4, 5)), (8, 10)),
        (Unused(), nn.ReLU(inplace=True), (4, 5)),
    ],
)
def test_residual_blocks_and_functions_are_complete_too(images, block, end, shape):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), copy.deepcopy(block), end, nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(2, 1, 8, 10))
    model = Classifier(network, ModelMetadata(class_names=("a", "b", "c"), image_shape=(8, 10, 1)))
    maps = class_activation_maps(model, images(), CLASSES)
    assert maps.shape == (3, *shape)
    logits = model.predict_logits(images())[range(3), CLASSES]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits - biases(model, CLASSES), rtol=1e-4, atol=1e-5)


# Grad-CAM


def test_before_global_average_pooling_grad_cam_is_the_class_activation_map(classifier, images):
    """Zhou et al. (2016): the gradient of a logit is then the dense layer's weight, the same at every pixel."""
    model = classifier(CONVOLUTION, {"type": "GlobalAveragePool2D"})
    given = images()
    with torch.no_grad():
        convolution, dense = model.network.conv2d_1, model.network.dense_1
        maps = F.relu(F.conv2d(planes(given), convolution.weight, convolution.bias, padding=1))
        expected = torch.einsum("nk,nkhw->nhw", dense.weight[CLASSES], maps).numpy() / 80
    assert expected.max() > 0 > expected.min()
    np.testing.assert_allclose(class_activation_maps(model, given, CLASSES), expected, atol=1e-6)
    grad_cams = class_activation_maps(model, given, CLASSES, "grad-cam")
    np.testing.assert_allclose(grad_cams, expected.clip(min=0), atol=1e-6)


def test_grad_cam_is_taken_after_normalisation_and_activation_before_pooling(classifier, images):
    model, given = classifier(*NORMALISED).eval(), images()
    network = model.network
    maps = network.activation_1(network.batchnorm_1(network.conv2d_1(planes(given)))).detach().requires_grad_()
    logits = network.dense_1(network.flatten_1(network.maxpool2d_1(maps)))
    (gradients,) = torch.autograd.grad(logits[range(3), CLASSES].sum(), maps)
    expected = (gradients.mean((2, 3), keepdim=True) * maps).sum(1).clamp(min=0).detach().numpy()
    np.testing.assert_allclose(class_activation_maps(model, given, CLASSES, "grad-cam"), expected, atol=1e-5)


def test_where_nothing_speaks_for_the_class_grad_cam_is_zero_and_hires_cam_negative(classifier, images):
    model = classifier(CONVOLUTION, {"type": "GlobalAveragePool2D"})
    with torch.no_grad():
        model.network.dense_1.weight[0] = -1
    assert (heat(model, images(1), np.array([0]), "grad-cam") == 0).all()
    evidence = heat(model, images(1), np.array([0]))
    assert (evidence.min(), evidence.max()) == (-1, pytest.approx(0, abs=0.5))
    assert (evidence <= 0).all()


# Heat maps


def test_small_maps_are_enlarged_and_cropped_to_the_image(classifier, images):
    coarse = {"type": "Conv2D", "filters": 6, "stride": 2, "kernel": 3, "padding": "same", "activation": "relu"}
    model = classifier(coarse, {"type": "GlobalAveragePool2D"}, pad=2)
    with torch.no_grad():
        maps = model.network.conv2d_1(F.pad(planes(images()), (2, 2, 2, 2)))
        weighted = torch.einsum("nk,nkhw->nhw", model.network.dense_1.weight[CLASSES], maps)
        expected = F.interpolate(weighted[None], (12, 14), mode="bilinear")[0, :, 2:-2, 2:-2].numpy()
    assert maps.shape[2:] == (6, 7)
    np.testing.assert_allclose(heat(model, images(), CLASSES), scale_to_one(expected), atol=1e-5)


def test_heat_maps_have_the_size_of_the_images(classifier, images):
    assert heat(classifier(*NORMALISED), images(2, 20, 16), CLASSES[:2]).shape == (2, 20, 16)


def test_heat_maps_of_letterboxed_images_leave_out_what_lies_beside_them(classifier, images):
    model, wide = classifier(*NORMALISED), images(1, 20, 60)
    height, width, _ = model.metadata.image_shape
    model.metadata = model.metadata.model_copy(update={"resize": "letterbox", "fill": 9})
    top, left, rows, columns = letterbox_place((20, 60), height, width)
    boxed = np.stack([letterbox(image, height, width, 9) for image in wide])
    inside = heat(model, boxed, CLASSES[:1])[:, top : top + rows, left : left + columns]
    enlarged = F.interpolate(torch.from_numpy(inside)[None], (20, 60), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(heat(model, wide, CLASSES[:1]), scale_to_one(enlarged), atol=0.05)


# Both


def test_many_images_are_explained_in_batches(classifier, images):
    model, given = classifier(*NORMALISED), images(300)
    classes = np.arange(300) % 3
    maps = class_activation_maps(model, given, classes)
    assert len(maps) == 300
    np.testing.assert_allclose(maps[299:], class_activation_maps(model, given[299:], classes[299:]), atol=1e-5)


def test_frozen_weights_can_be_explained(classifier, images):
    model = classifier(*NORMALISED)
    expected = class_activation_maps(model, images(), CLASSES)
    frozen = class_activation_maps(model.requires_grad_(False), images(), CLASSES)
    np.testing.assert_array_equal(frozen, expected)


@pytest.mark.parametrize(("method", "title"), [("hires-cam", "HiResCAM"), ("grad-cam", "Grad-CAM")])
def test_networks_without_a_convolution_are_refused(classifier, images, method, title):
    model = classifier(*DENSE)
    with pytest.raises(ModelError, match=rf"{title} is not possible.*occlusion"):
        class_activation_maps(model, images(), CLASSES, method)
    with pytest.raises(ModelError, match="no filters"):
        first_filters(model)


def test_an_unknown_method_is_refused(classifier, images):
    with pytest.raises(UserError, match=r"Unknown method 'grad_cam'\. Did you mean 'grad-cam'"):
        class_activation_maps(classifier(*NORMALISED), images(), CLASSES, "grad_cam")


def test_a_convolution_down_to_one_pixel_is_part_of_the_head(classifier, images):
    whole = {"type": "Conv2D", "filters": 4, "kernel": 8, "activation": "relu"}
    model = classifier(CONVOLUTION, whole, FLATTEN, shape=(8, 8, 1))
    assert class_activation_maps(model, images(1, 8, 8), np.array([1])).shape == (1, 8, 8)
    with pytest.raises(ModelError, match="more than one pixel"):
        class_activation_maps(classifier(whole, FLATTEN, shape=(8, 8, 1)), images(1, 8, 8), np.array([1]))


def test_the_model_stays_unchanged(classifier, images, state_of):
    model = classifier(*NORMALISED).train()
    model.network.batchnorm_1.eval()  # differs from the mode of the network
    before = state_of(model)
    class_activation_maps(model, images(), CLASSES)
    assert state_of(model) == before
    model.network.dense_1.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        class_activation_maps(model, images(), CLASSES)
    assert state_of(model) == before


@pytest.mark.parametrize("classes", [[0, 1, 3], [-1, 0, 0], [0, 1]])
def test_classes_must_be_one_valid_index_for_each_image(classifier, images, classes):
    with pytest.raises(DataError, match="each of the 3 images a class, as a number from 0 to 2"):
        class_activation_maps(classifier(*NORMALISED), images(), np.array(classes))
