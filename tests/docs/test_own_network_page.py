"""The page on networks of one's own: its examples run, on small data and with small random networks."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveola

PAGE = Path(__file__).parents[2] / "docs" / "own-network.md"
OWN, TRANSFORMERS, TIMM = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)

pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Forty pictures of two classes, in the working directory; the class is the brighter channel."""
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 200, (40, 40, 3), dtype=np.uint8)
        pixels[..., number % 2] += 50
        path = tmp_path / "photos" / ("red", "green")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logits_elsewhere(run, images):
    """Logits of the run in a process that has no code of the network."""
    np.save("images.npy", images)
    code = (
        "import sys, numpy, foveola\n"
        f"numpy.save('logits.npy', foveola.open({str(run)!r}).predict_logits(numpy.load('images.npy')))\n"
        "assert not {'torch', 'timm', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    return np.load("logits.npy")


def test_a_network_in_pytorch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = OWN.replace('out="runs/mine"', 'out="runs/mine", overrides={"epochs": 1}, report=False')
    found = {}
    exec(small, found)  # noqa: S102  # the page's own code
    images = foveola.load("digits").train.images[:20]
    live = foveola.open("runs/mine", network=found["Network"]())
    np.testing.assert_allclose(logits_elsewhere("runs/mine", images), live.predict_logits(images), atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_a_network_from_transformers(photos):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    found = {}
    exec(TRANSFORMERS, found)  # noqa: S102
    images = foveola.load("photos", image_size=32).train.images
    live = foveola.open("runs/vit", network=found["Logits"]("vit", 2))
    np.testing.assert_allclose(logits_elsewhere("runs/vit", images), live.predict_logits(images), atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_a_network_from_timm(photos):
    timm = pytest.importorskip("timm")
    exec(TIMM, {})  # noqa: S102
    images = foveola.load("photos", image_size=64).train.images
    live = foveola.open("runs/timm", network=timm.create_model("resnet18", num_classes=2))
    np.testing.assert_allclose(logits_elsewhere("runs/timm", images), live.predict_logits(images), atol=1e-3)
