"""Which recipe is proposed, and chosen by `--recipe auto`."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import foveola
from foveola.errors import DataError, DownloadError
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe
from foveola.workflow import choose_recipe as module
from foveola.workflow.choose_recipe import choose_recipe, proposal, side_of_loaded, side_of_photographs

QUIET = Console(quiet=True)


@pytest.fixture
def folder(tmp_path):
    """Function that makes an image folder of two classes, of random colours or grey."""

    def make(side, *, colour=True, count=6):
        generator = np.random.default_rng(0)
        for index in range(count):
            pixels = generator.integers(0, 256, (side, side, 3 if colour else 1), dtype=np.uint8)
            path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.repeat(1 if colour else 3, axis=2)).save(path)
        return tmp_path / "pictures"

    return make


@pytest.mark.parametrize(("side", "colour", "expected"), [(65, True, 65), (64, True, None), (200, False, None)])
def test_photographs_are_large_and_in_colour(folder, side, colour, expected):
    data = folder(side, colour=colour)
    assert side_of_photographs(data) == expected
    assert side_of_loaded(foveola.load(data)) == expected


def test_arrays_are_photographs_by_their_shape():
    images = np.full((200, 96, 70, 3), (0, 9, 99), np.uint8)
    assert side_of_photographs(Dataset("x", ImageSet(images, np.arange(200) % 2, ("a", "b")))) == 96
    grey = images[..., :1].repeat(3, axis=3)
    assert side_of_photographs(Dataset("x", ImageSet(grey, np.arange(200) % 2, ("a", "b")))) is None
    assert side_of_photographs("digits") is None


def test_data_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*nothing"):
        side_of_photographs(tmp_path / "nothing")


def test_photographs_get_a_pretrained_network_if_its_weights_are_at_hand(folder, monkeypatch):
    data = folder(80)
    monkeypatch.setattr(module, "find_weights", lambda recipe, progress: None)
    chosen = choose_recipe(data, {"epochs": 3}, None, QUIET)
    assert (chosen.name, chosen.pretrained, chosen.epochs) == ("efficientnet-lite0", "efficientnet-lite0", 3)
    assert chosen.image_size == 96
    assert choose_recipe(data, {"image_size": 64}, None, QUIET).image_size == 64

    def offline(recipe, progress):
        raise DownloadError("no network. Put the file there.")

    monkeypatch.setattr(module, "find_weights", offline)
    screen = Console(record=True, width=200)
    assert choose_recipe(data, {"epochs": 3}, None, screen).name == "fast"
    assert "although these are colour photographs: no network. Put the file there." in screen.export_text()


def test_other_data_is_trained_from_the_start():
    assert choose_recipe("digits", {"epochs": 3}, None, QUIET) == load_recipe("fast", {"epochs": 3})


def test_a_better_start_is_proposed_for_photographs_only(folder):
    photographs = foveola.load(folder(80))
    assert "--recipe efficientnet-lite0 --set image_size=96" in (proposal(load_recipe("fast"), photographs) or "")
    large = Dataset("x", ImageSet(np.full((4, 300, 200, 3), (0, 9, 99), np.uint8), np.arange(4) % 2, ("a", "b")))
    assert (proposal(load_recipe("fast"), large) or "").endswith("--recipe efficientnet-lite0")
    assert proposal(load_recipe("efficientnet-lite0"), photographs) is None
    assert proposal(load_recipe("fast"), foveola.load("digits")) is None


def test_auto_trains_what_it_has_chosen_and_records_it(tmp_path, capsys):
    settings = {"epochs": 1, "minimum_steps": 0}
    run = foveola.train("digits", "auto", out=tmp_path / "run", overrides=settings, report=False)
    assert run.status.recipe.name == "fast"
    assert "no colour photographs" in capsys.readouterr().err
