"""Pretrained weights: names and layers against the published networks, and files that are refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from foveola.errors import ModelError, RecipeError
from foveola.models.classifier import Classifier
from foveola.models.metadata import METADATA_KEY, ModelMetadata, PretrainedOrigin
from foveola.models.modules import build_network
from foveola.models.pretrained import ENTRIES, Pretrained, load_pretrained, read_pretrained
from foveola.models.shapes import all_layers, infer_shapes
from foveola.recipe import load_recipe, parse_recipe
from published_networks import published_logits

SMALL = [
    {"type": "Conv2D", "filters": 4, "bias": False},
    {"type": "BatchNorm"},
    {"type": "GlobalAveragePool2D"},
    {"type": "Dense", "units": "classes"},
]
ENTRY = Pretrained("small", "small", "someone/small", "MIT", "", "", ("stem", "norm", "head"), 8, "signed", 7)


def network_of(layers, classes, size=8, channels=3):
    infos = infer_shapes(layers, (size, size, channels), classes)
    return build_network(infos).eval(), infos


def small_network(classes=3, channels=3):
    return network_of(parse_recipe({"name": "small", "layers": SMALL}).layers, classes, channels=channels)


def tensors(**changes):
    """Tensors of the small network by their published names; a change of None leaves one out."""
    made = {
        "stem.weight": torch.randn(4, 3, 3, 3),
        "norm.weight": torch.rand(4) + 0.5,
        "norm.bias": torch.randn(4),
        "norm.running_mean": torch.randn(4),
        "norm.running_var": torch.rand(4) + 0.5,
        "norm.num_batches_tracked": torch.tensor(9),
        "head.weight": torch.randn(7, 4),
        "head.bias": torch.randn(7),
    } | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in made.items() if tensor is not None}


@pytest.fixture
def file_of(tmp_path):
    def write(**changes):
        save_file(tensors(**changes), tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


# The published networks


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_names_each_layer_of_its_recipe_and_takes_its_images(name):
    entry, recipe = ENTRIES[name], load_recipe(ENTRIES[name].recipe)
    assert (recipe.pretrained, recipe.scaling, recipe.image_size, recipe.channels) == (
        name, entry.scaling, entry.image_size, "rgb",
    )  # fmt: skip
    infos = infer_shapes(recipe.layers, (entry.image_size, entry.image_size, 3), entry.classes)
    layers = [info for info in all_layers(infos) if info.parameters and not info.branches]
    assert len(set(entry.modules)) == len(entry.modules) == len(layers)
    kinds = {module: info.layer.type for module, info in zip(entry.modules, layers, strict=True)}
    assert all((kind == "BatchNorm") == bool(re.search(r"bn\d$|downsample\.1$", name)) for name, kind in kinds.items())
    assert (kinds[entry.modules[-1]], layers[-1].output_shape) == ("Dense", (entry.classes,))


@pytest.mark.parametrize("name", ENTRIES)
def test_with_published_names_the_recipe_computes_what_the_published_network_does(name, tmp_path):
    """Random weights: those of trained networks are in tests/real."""
    entry, recipe = ENTRIES[name], load_recipe(name)
    network, infos = network_of(recipe.layers, entry.classes, 64)
    generator = torch.Generator().manual_seed(0)
    published = {}
    layers = [info.name for info in all_layers(infos) if info.parameters and not info.branches]
    for layer, module in zip(layers, entry.modules, strict=True):
        for key, tensor in network.get_submodule(layer).state_dict().items():
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                published[f"{module}.{key}"] = drawn * (2 / tensor[0].numel()) ** 0.5
            elif tensor.ndim:
                published[f"{module}.{key}"] = 0.8 + drawn.abs() / 4 if key in ("weight", "running_var") else drawn / 4
    save_file(published, tmp_path / "model.safetensors")
    load_pretrained(network, infos, read_pretrained(entry, tmp_path / "model.safetensors"), head=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    scaled = {"signed": ((0.5,) * 3, (0.5,) * 3), "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
    mean, std = scaled[entry.scaling]
    names = tuple(map(str, range(entry.classes)))
    classifier = Classifier(network, ModelMetadata(class_names=names, image_shape=(64, 64, 3), mean=mean, std=std))
    expected = published_logits(name, published, images)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(classifier.predict_logits(images), expected, atol=2e-5 * np.abs(expected).max())


# Loading


def test_all_layers_but_the_last_are_copied(file_of):
    path = file_of()
    network, infos = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_pretrained(network, infos, read_pretrained(ENTRY, path))
    given, after = load_file(path), network.state_dict()
    names = {"conv2d_1": "stem", "batchnorm_1": "norm"}
    for name, tensor in after.items():
        layer, _, key = name.rpartition(".")
        if layer == "dense_1":
            assert torch.equal(tensor, before[name])
        elif key != "num_batches_tracked":
            assert torch.equal(tensor, given[f"{names[layer]}.{key}"])


def test_the_last_layer_is_copied_for_the_published_classes(file_of):
    path = file_of()
    network, infos = small_network(classes=7)
    load_pretrained(network, infos, read_pretrained(ENTRY, path), head=True)
    assert torch.equal(network.dense_1.weight, load_file(path)["head.weight"])
    network, infos = small_network(classes=3)
    with pytest.raises(ModelError, match=r"head\.weight is 7×4 instead of 3×4"):
        load_pretrained(network, infos, read_pretrained(ENTRY, path), head=True)


def test_a_file_may_have_other_classes_or_none(file_of):
    for changes in ({"head__weight": torch.randn(2, 4)}, {"head__weight": None, "head__bias": None}):
        network, infos = small_network()
        load_pretrained(network, infos, read_pretrained(ENTRY, file_of(**changes)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(file_of, dtype):
    half = torch.randn(4, 3, 3, 3).to(dtype)
    network, infos = small_network()
    load_pretrained(network, infos, read_pretrained(ENTRY, file_of(stem__weight=half)))
    assert torch.equal(network.conv2d_1.weight, half.float())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"norm__bias": None}, r"norm\.bias is missing"),
        ({"extra__bias": torch.ones(1)}, r"extra\.bias is unexpected"),
        ({"stem__weight": torch.ones(5, 3, 3, 3)}, r"stem\.weight is 5×3×3×3 instead of 4×3×3×3"),
        ({f"a{i}": torch.ones(1) for i in range(8)}, r"a0 is unexpected; .*a4 is unexpected; and 3 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_copied(file_of, changes, problem):
    network, infos = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=problem):
        load_pretrained(network, infos, read_pretrained(ENTRY, file_of(**changes)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_grey_images_and_other_layers_are_refused_with_the_cure(file_of):
    weights = read_pretrained(ENTRY, file_of())
    with pytest.raises(ModelError, match=r'stem\.weight is 4×3×3×3 instead of 4×1×3×3.*channels = "rgb"'):
        load_pretrained(*small_network(channels=1), weights)
    other = parse_recipe({"name": "other", "layers": [*SMALL[:3], {"type": "Dense", "units": 5}, SMALL[3]]})
    with pytest.raises(ModelError, match=r"have 3 layers, but the recipe has 4 with weights.*--set pretrained=none"):
        load_pretrained(*network_of(other.layers, 3), weights)


# Files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cut off, or not a safetensors file"),
        (b"PK\3\4" + bytes(100), "pickle and could run code"),
        (b"\x80\2}q\0." + bytes(100), "pickle and could run code"),
        (b"\x08" + bytes(7) + b"notjson!", "cannot be read"),
        ((2**40).to_bytes(8, "little") + bytes(100), "cut off"),
        (b"\x02" + bytes(7) + b"[]", "header is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, problem):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        read_pretrained(ENTRY, path)


def test_a_file_that_is_cut_off_is_refused(file_of):
    path = file_of()
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ModelError, match=r"damaged\. Download it again"):
        read_pretrained(ENTRY, path)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.tensor([1.0, float("nan"), 0.0, 0.0]), r"norm\.bias holds values that are NaN"),
        (torch.zeros(4, dtype=torch.float64), r"norm\.bias is torch\.float64.*Only float32"),
        (torch.zeros(4, dtype=torch.int32), r"norm\.bias is torch\.int32"),
    ],
)
def test_values_that_cannot_be_computed_with_are_refused(file_of, tensor, problem):
    with pytest.raises(ModelError, match=problem):
        read_pretrained(ENTRY, file_of(norm__bias=tensor))


def test_a_missing_or_huge_file_is_refused(tmp_path, file_of, monkeypatch):
    with pytest.raises(ModelError, match=r"missing or damaged\. Download it again"):
        read_pretrained(ENTRY, tmp_path / "none.safetensors")
    path = file_of()
    monkeypatch.setattr("foveola.models.pretrained.MAX_BYTES", 100)
    with pytest.raises(ModelError, match="of at most 100"):
        read_pretrained(ENTRY, path)


def test_a_model_of_foveolas_is_refused_with_the_option_for_it(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path, {METADATA_KEY: "{}"})
    with pytest.raises(ModelError, match=r"Begin from it with --init .*model\.safetensors"):
        read_pretrained(ENTRY, path)


def test_where_a_file_comes_from_is_said_as_far_as_it_is_known(file_of):
    path = file_of()
    unknown = read_pretrained(ENTRY, path).origin
    assert (unknown.source, unknown.licence, unknown.verified) == (None, None, False)
    assert "unknown origin and licence" in str(unknown)
    placed = read_pretrained(ENTRY, path, by_name=True).origin
    assert (placed.source, placed.licence, placed.verified) == ("https://huggingface.co/someone/small", "MIT", False)
    assert "not a known one" in str(placed)
    downloaded = read_pretrained(ENTRY, path, by_name=True, downloaded=True).origin
    assert str(downloaded) == "small, MIT, https://huggingface.co/someone/small"
    known = read_pretrained(replace(ENTRY, known={unknown.sha256: "a package"}), path).origin
    assert known == PretrainedOrigin(
        name="small", sha256=unknown.sha256, source="a package", licence="MIT", verified=True
    )


# The recipe's key


def test_the_recipe_key_is_a_known_name_or_none():
    assert load_recipe("resnet18", {"pretrained": "none"}).pretrained == load_recipe("fast").pretrained == "none"
    with pytest.raises(RecipeError, match="pretrained is 'resnet19'; it should be 'none' or 'efficientnet-lite0' or"):
        load_recipe("resnet18", {"pretrained": "resnet19"})
