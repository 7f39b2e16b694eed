"""Networks in PyTorch as ONNX graphs: PyTorch's logits, layers that the graph names, and what cannot be exported."""

import logging
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveola.exports import onnx, own_graph
from foveola.exports.own_graph import MAX_LAYERS, NotExportable, build_own_graph
from foveola.exports.parity import check_parity
from foveola.models.classifier import Classifier
from foveola.models.metadata import ModelMetadata
from own_networks import AttentionNetwork, ResidualNetwork

NAMES = tuple("abcdefghij")


class Assorted(nn.Module):
    """Parts of usual networks: depthwise convolution, squeeze and excitation, group and layer normalisation, heads."""

    def __init__(self, channels=3, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16), nn.ReLU6())
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.layer_norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.group_norm = nn.GroupNorm(4, 16)
        self.queries, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, classes))

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x)
        y = y * F.hardsigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = F.max_pool2d(x + F.pad(y, (1, 1, 0, 2))[:, :, :-2, 1:-1], 2, ceil_mode=True)
        x = x + self.narrow(F.gelu(self.wide(self.layer_norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        first, second = self.group_norm(x).chunk(2, dim=1)
        x = torch.cat([first, second * torch.sigmoid(first)], dim=1)
        n, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        parts = self.queries(tokens).reshape(n, height * width, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(n, -1, channels))
        return self.head(
            F.adaptive_avg_pool2d(tokens.transpose(1, 2).reshape(n, channels, height, width), 1).flatten(1)
        )


def classifier(network, shape, **metadata):
    return Classifier(network, ModelMetadata(class_names=NAMES, image_shape=shape, temperature=1.7, **metadata)).eval()


def exported(live, tmp_path):
    """The classifier, saved, exported and reopened."""
    live.save(tmp_path / "model.safetensors")
    own_graph.write(tmp_path / "model.safetensors", live, tmp_path / "model.onnx")
    return onnx.open(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("network", "shape", "settings"),
    [
        (AttentionNetwork, (8, 8, 1), {"channels": "grey"}),
        pytest.param(ResidualNetwork, (8, 10, 1), {"pad": 1, "resize": "letterbox"}, marks=pytest.mark.slow),
        pytest.param(Assorted, (18, 14, 3), {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}, marks=pytest.mark.slow),
    ],
)
def test_the_graph_gives_the_logits_of_the_network(network, shape, settings, images_of, tmp_path):
    torch.manual_seed(0)
    live = classifier(network(), shape, **settings)
    export = exported(live, tmp_path)
    check_parity(live, export, images_of((*shape[:2], 1)), tolerance=1e-5)
    check_parity(live, export, images_of((31, 17, shape[2])))
    assert {"head", "features"} & {layer.name for layer in export.layers}
    maps = export.feature_maps(images_of(shape, 3))
    assert {name: values.shape[1:] for name, values in maps.items()} == {a.name: a.shape for a in export.layers}
    features = export.penultimate_features(images_of(shape, 3))
    np.testing.assert_array_equal(features, maps["features"])
    live.metadata = live.metadata.model_copy(update={"temperature": 1.0})
    last = live.network.head if isinstance(live.network.head, nn.Linear) else live.network.head[-1]
    with torch.no_grad():
        logits = last(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(logits, live.predict_logits(images_of(shape, 3)), atol=1e-5)
    assert export.multiply_adds > 0


def test_layers_are_named_by_the_modules_that_give_them(images_of, tmp_path):
    torch.manual_seed(0)
    live = classifier(ResidualNetwork(), (8, 8, 1))
    export = exported(live, tmp_path)
    images = images_of((8, 8, 1), 3)
    outputs = {}
    for name, module in live.network.named_modules():
        module.register_forward_hook(lambda _, inputs, output, name=name: outputs.update({name: output}))
    live.predict_logits(images)
    found = export.feature_maps(images)
    assert {"stem.2", "blocks.0", "blocks.1", "blocks.1.shortcut", "features", "logits"} <= set(found)
    assert [layer.type for layer in export.layers if layer.name == "blocks.0"] == ["Block"]
    for name in found.keys() - {"features", "logits"}:
        np.testing.assert_allclose(found[name], outputs[name].permute(0, 2, 3, 1), atol=1e-4)


def test_of_many_modules_only_the_outer_ones_are_listed():
    layers = [
        own_graph.LayerOutput(name=name, type="Conv2d", tensor=name, shape=(1,))
        for block in range(30)
        for name in (f"blocks.{block}.conv", f"blocks.{block}")
    ]
    kept = own_graph._outermost(layers)
    assert [layer.name for layer in kept] == [f"blocks.{block}" for block in range(30)]
    assert len(own_graph._outermost([layer for layer in layers if layer.name.count(".") == 1] * 3)) <= MAX_LAYERS


class Scaled(nn.Module):
    """A dense layer, then something that cannot be exported."""

    def __init__(self, then):
        super().__init__()
        self.dense, self.then = nn.Linear(64, 10), then

    def forward(self, x):
        return self.then(self.dense(x.flatten(1)))


class ByLength(nn.Module):
    """A network that asks for the number of images by len()."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Parameter(torch.ones(1, 8)), nn.Linear(72, 10)

    def forward(self, x):
        return self.head(torch.cat([self.token.expand(len(x), -1), x.flatten(1)], dim=1))


@pytest.mark.slow
def test_the_length_of_the_batch_may_be_used(images_of, tmp_path):
    live = classifier(ByLength(), (8, 8, 1))
    check_parity(live, exported(live, tmp_path), images_of((8, 8, 1)), tolerance=1e-5)


def branching(x):
    return x if x.sum() > 0 else -x


def sorting(x):
    return x.sort(dim=1).values


@pytest.mark.parametrize(
    ("then", "reason"), [(sorting, "graph has a node of the operator TopK which exports do not allow"),
                         pytest.param(branching, "cannot translate it: .*data-dependent", marks=pytest.mark.slow)]
)  # fmt: skip
def test_what_cannot_be_exported_is_named(then, reason):
    with pytest.raises(NotExportable, match=reason):
        build_own_graph(Scaled(then), classifier(nn.Identity(), (8, 8, 1)).metadata)


def test_a_network_that_cannot_be_copied_is_named():
    network = Scaled(nn.Identity())
    network.values = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(NotExportable, match="cannot be copied"):
        build_own_graph(network, classifier(nn.Identity(), (8, 8, 1)).metadata)


def test_torch_is_quiet_only_during_an_export(caplog):
    with own_graph._quiet():
        warnings.warn("hidden", stacklevel=1)
        logging.getLogger("torch.onnx").error("hidden")
    assert not caplog.records
    logging.getLogger("torch.onnx").error("shown")
    assert [record.message for record in caplog.records] == ["shown"]
