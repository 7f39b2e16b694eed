"""Invalid input: one message, exit code 2, and no files left behind."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file


@dataclass(frozen=True)
class World:
    """An empty folder, in which the command runs, with valid data, recipe and run."""

    folder: Path
    data: Path
    recipe: Path
    run: Path

    def train(self, data: object = None, *more: object, recipe: object = None) -> list[object]:
        return ["train", data or self.data, "--recipe", recipe or self.recipe, "--device", "cpu", *more]

    def copied_run(self) -> Path:
        return Path(shutil.copytree(self.run, self.folder / "run"))

    def npz(self, **arrays: Any) -> Path:
        np.savez(self.folder / "data.npz", **arrays)
        return self.folder / "data.npz"

    def idx(self, *, images: bytes | None = None, labels: bytes | None = None) -> Path:
        folder = self.folder / "idx"
        folder.mkdir()
        pixels = np.arange(6 * 4 * 4, dtype=np.uint8)
        (folder / "train-images-idx3-ubyte").write_bytes(images or idx_file((6, 4, 4), bytes(pixels)))
        (folder / "train-labels-idx1-ubyte").write_bytes(labels or idx_file((6,), bytes([0, 1, 2] * 2)))
        return folder

    def image_folder(self, **classes: int) -> Path:
        """An image folder with a number of grey images for each class."""
        for name, count in classes.items():
            (self.folder / "images" / name).mkdir(parents=True)
            for number in range(count):
                grey_image(self.folder / "images" / name / f"{number}.png")
        return self.folder / "images"

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def toml(self, text: str) -> Path:
        return self.file("mine.toml", text)

    def colour_image(self) -> Path:
        Image.new("RGB", (20, 20), (200, 30, 30)).save(self.folder / "red.png")
        return self.folder / "red.png"


def idx_file(shape: tuple[int, ...], content: bytes, magic: int = 0x800) -> bytes:
    return struct.pack(f">I{len(shape)}I", magic + len(shape), *shape) + content


def grey_image(path: Path) -> Path:
    Image.fromarray(np.eye(8, dtype=np.uint8) * 200).save(path)
    return path


def bmp_header(width: int, height: int) -> bytes:
    """A BMP of 24 bits a pixel that ends where its pixels should begin."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def run_with(world: World, **files: bytes) -> Path:
    """A copy of the run with other contents in some files; `run_json` stands for run.json."""
    run = world.copied_run()
    for name, content in files.items():
        (run / name.replace("_", ".")).write_bytes(content)
    return run


def run_without_model(world: World) -> Path:
    run = world.copied_run()
    (run / "model.safetensors").unlink()
    return run


def foreign_safetensors(world: World) -> Path:
    save_file({"weight": np.zeros(3, np.float32)}, world.folder / "foreign.safetensors")
    return world.folder / "foreign.safetensors"


def other_weights(world: World) -> Path:
    save_file({"stem.weight": np.ones((4, 3, 3, 3), np.float32)}, world.folder / "other.safetensors")
    return world.folder / "other.safetensors"


def damaged_metadata(world: World) -> Path:
    save_file({"weight": np.zeros(3, np.float32)}, world.folder / "odd.safetensors", {"foveola": '{"format": 99}'})
    return world.folder / "odd.safetensors"


def corrupt_image_folder(world: World) -> Path:
    folder = world.image_folder(cat=9, dog=9)
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    return folder


def truncated(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: len(content) * 2 // 3]


LAYERS = 'layers = [{ type = "Flatten" }, { type = "Dense", units = "classes" }]\n'
BARS = np.zeros((6, 4, 4), np.uint8)

# The fault → the command, and what its message must contain
CASES: dict[str, tuple[Callable[[World], list[object]], tuple[str, ...]]] = {
    # Data
    "idx-truncated": (
        lambda w: w.train(w.idx(images=idx_file((6, 4, 4), bytes(50)))),
        ("train-images-idx3-ubyte", "96 bytes", "truncated", "replace"),
    ),
    "idx-too-long": (
        lambda w: w.train(w.idx(images=idx_file((6, 4, 4), bytes(97)))),
        ("train-images-idx3-ubyte", "97", "replace"),
    ),
    "idx-header-truncated": (
        lambda w: w.train(w.idx(labels=struct.pack(">I", 0x801))),
        ("train-labels-idx1-ubyte", "header", "replace"),
    ),
    "idx-wrong-magic": (
        lambda w: w.train(w.idx(images=idx_file((6, 4, 4), bytes(96), magic=0xD00))),
        ("train-images-idx3-ubyte", "00 00 0d 03", "00 00 08 03", "replace"),
    ),
    "idx-counts-differ": (
        lambda w: w.train(w.idx(labels=idx_file((5,), bytes([0, 1, 2, 0, 1])))),
        ("idx", "6 images but 5 labels"),
    ),
    "idx-one-image-of-a-class": (
        lambda w: w.train(w.idx(labels=idx_file((6,), bytes([0, 0, 0, 0, 0, 200])))),
        ("'200'", "single image", "Add images"),
    ),
    "idx-two-images-of-a-class": (
        lambda w: w.train(w.idx(labels=idx_file((6,), bytes([0, 0, 0, 0, 200, 200])))),
        ("'200'", "2 images, too few", "Add images"),
    ),
    "idx-without-labels": (
        lambda w: w.train(w.file("half/train-images-idx3-ubyte", idx_file((6, 4, 4), bytes(96))).parent),
        ("train-labels-idx1-ubyte", "add"),
    ),
    "npz-labels-out-of-range": (
        lambda w: w.train(w.npz(x_train=BARS, y_train=np.arange(6) % 3, class_names=np.array(["a", "b"]))),
        ("data.npz", "0 to 2", "2 classes"),
    ),
    "npz-counts-differ": (
        lambda w: w.train(w.npz(x_train=BARS, y_train=np.arange(4) % 2)),
        ("data.npz", "6 images but 4 labels"),
    ),
    "npz-single-class": (
        lambda w: w.train(w.npz(x_train=BARS, y_train=np.zeros(6, int))),
        ("1 class", "at least two"),
    ),
    "npz-truncated": (lambda w: w.train(w.file("data.npz", truncated(w.data))), ("data.npz", "truncated", "replace")),
    "npz-of-python-objects": (
        lambda w: w.train(w.npz(x_train=np.array([{}] * 6, object), y_train=np.arange(6) % 2)),
        ("data.npz", "never Python objects"),
    ),
    "npz-without-images": (lambda w: w.train(w.npz(weights=BARS)), ("data.npz", "weights", "x_train")),
    "folder-empty-class": (lambda w: w.train(w.image_folder(cat=3, dog=0)), ("dog", "empty", "Add images")),
    "folder-single-class": (lambda w: w.train(w.image_folder(cat=4)), ("1 class", "at least two")),
    "folder-class-of-one-image": (lambda w: w.train(w.image_folder(cat=4, dog=1)), ("'dog' has a single image", "Add")),
    "folder-corrupt-image": (lambda w: w.train(corrupt_image_folder(w)), ("dog/1.png", "--skip-bad 1")),
    "folder-without-classes": (
        lambda w: w.train(w.file("mine/a.txt", "").parent),
        ("no class folders", "a.txt"),
    ),
    "unknown-data-set": (lambda w: w.train("mnits"), ("mnits", "Did you mean 'mnist'?")),
    "missing-path": (lambda w: w.train("no/such/folder"), ("no/such/folder",)),
    # Recipes
    "unknown-recipe": (lambda w: w.train(recipe="lenet"), ("'lenet'", "Did you mean 'lenet5'?", "TOML")),
    "recipe-file-missing": (lambda w: w.train(recipe="my.toml"), ("my.toml", "cannot be read")),
    "recipe-not-toml": (lambda w: w.train(recipe=w.toml("layers = [")), ("mine.toml", "not valid TOML")),
    "unknown-key": (
        lambda w: w.train(recipe=w.toml("learning_rat = 0.1\n" + LAYERS)),
        ("mine.toml", "'learning_rat'", "Did you mean 'learning_rate'?"),
    ),
    "unknown-key-by-set": (
        lambda w: w.train(None, "--set", "augment.shfit=1"),
        ("'shfit'", "Did you mean 'shift'?"),
    ),
    "unknown-layer": (
        lambda w: w.train(recipe=w.toml('layers = [{ type = "Conv2d", filters = 3 }]')),
        ("Layer 1", "'Conv2d'", "Did you mean 'Conv2D'?"),
    ),
    "unknown-layer-setting": (
        lambda w: w.train(recipe=w.toml('layers = [{ type = "Dense", unit = 3 }]')),
        ("Layer 1", "'unit'", "Did you mean 'units'?"),
    ),
    "layers-that-do-not-fit": (
        lambda w: w.train(recipe=w.toml('layers = [{ type = "Conv2D", filters = 3, kernel = 9 }]')),
        ("conv2d_1", "8×8×1"),
    ),
    "recipe-without-layers": (lambda w: w.train(recipe=w.toml("epochs = 3")), ("mine.toml", "layers is missing")),
    "value-out-of-range": (lambda w: w.train(None, "--set", "batch_size=0"), ("batch_size is 0", "greater than")),
    "value-of-another-type": (lambda w: w.train(None, "--set", "epochs=many"), ("epochs is 'many'", "integer")),
    "reject-beyond-one": (lambda w: w.train(None, "--reject", "1.5"), ("reject is 1.5", "less than 1")),
    "reject-without-validation": (
        lambda w: w.train(None, "--reject", "0.01", "--set", "validation=0"),
        ("reject", "set validation above 0"),
    ),
    "set-without-value": (lambda w: w.train(None, "--set", "epochs"), ("--set takes key=value", "Example")),
    "summary-of-unknown-recipe": (lambda w: ["summary", "wets"], ("'wets'", "Did you mean 'west'?")),
    "summary-of-bad-image": (lambda w: ["summary", "west", "--image", "28"], ("--image is '28'", "28x28x1")),
    "summary-of-too-small-image": (lambda w: ["summary", "west", "--image", "2x2x1"], ("conv2d_1", "2×2×1")),
    "diagram-of-unknown-format": (lambda w: ["summary", "west", "--diagram", "west.docx"], ("west.docx", "svg")),
    "diagram-below-a-file": (
        lambda w: ["summary", "west", "--diagram", w.file("file", "") / "west.svg"],
        ("west.svg", "cannot be written"),
    ),
    # Output
    "out-below-a-file": (lambda w: w.train(None, "--out", w.file("file", "") / "run"), ("file", "--out")),
    "out-is-a-file": (lambda w: w.train(None, "--out", w.file("file", "")), ("is a file", "--out")),
    "out-holds-a-run": (lambda w: w.train(None, "--out", w.copied_run()), ("already holds a run", "--force")),
    "out-holds-other-files": (
        lambda w: w.train(None, "--force", "--out", w.file("mine/letter.txt", "dear").parent),
        ("holds files", "left alone", "--out"),
    ),
    "evaluation-below-a-file": (
        lambda w: ["evaluate", w.run, w.data, "--out", w.file("file", "") / "e.json"],
        ("e.json", "--out"),
    ),
    # Models
    "model-missing": (lambda w: ["predict", "runs/none", "a.png"], ("runs/none", "foveola train")),
    "model-of-unknown-format": (lambda w: ["evaluate", w.file("m.h5", "x"), w.data], ("m.h5", ".safetensors")),
    "model-truncated": (
        lambda w: ["evaluate", run_with(w, model_safetensors=truncated(w.run / "model.safetensors")), w.data],
        ("model.safetensors", "damaged"),
    ),
    "model-garbage": (
        lambda w: ["evaluate", w.file("m.safetensors", b"\x93NUMPY garbage" * 9), w.data],
        ("m.safetensors", "damaged"),
    ),
    "model-empty": (lambda w: ["evaluate", w.file("m.safetensors", b""), w.data], ("m.safetensors", "damaged")),
    "model-foreign": (lambda w: ["evaluate", foreign_safetensors(w), w.data], ("not a Foveola model",)),
    "model-metadata-damaged": (lambda w: ["evaluate", damaged_metadata(w), w.data], ("odd.safetensors", "damaged")),
    "run-without-model": (lambda w: ["evaluate", run_without_model(w), w.data], ("no model.safetensors", "rain it")),
    "run-json-damaged": (
        lambda w: ["evaluate", run_with(w, run_json=b'{"status": '), w.data],
        ("run.json", "damaged", "Train the run again"),
    ),
    "folder-without-run": (
        lambda w: ["evaluate", w.file("mine/a.txt", "").parent, w.data],
        ("mine is no", "run.json", "foveola train"),
    ),
    "init-missing": (lambda w: w.train(None, "--init", "runs/none"), ("runs/none",)),
    "init-of-other-layers": (
        lambda w: w.train(None, "--init", w.run, recipe="mlp"),
        ("No layer of", "same recipe"),
    ),
    "weights-for-a-recipe-without": (
        lambda w: w.train(None, "--weights", w.file("a.safetensors", b"")),
        ("begins with random ones", "--recipe efficientnet-lite0", "--init"),
    ),
    "weights-missing": (
        lambda w: w.train(None, "--weights", "none.safetensors", recipe="efficientnet-lite0"),
        ("none.safetensors", "missing or damaged", "huggingface.co/timm/tf_efficientnet_lite0.in1k"),
    ),
    "weights-are-a-pickle": (
        lambda w: w.train(None, "--weights", w.file("a.pth", b"PK\3\4" + bytes(50)), recipe="resnet18"),
        ("a.pth", "pickle", "huggingface.co/timm/resnet18.tv_in1k"),
    ),
    "weights-are-a-run": (
        lambda w: w.train(None, "--weights", w.run / "model.safetensors", recipe="resnet18"),
        ("a model that Foveola has saved", "--init"),
    ),
    "weights-of-another-network": (
        lambda w: w.train(None, "--weights", other_weights(w), recipe="resnet18"),
        ("conv1.weight is missing", "and 96 more", "recipe resnet18"),
    ),
    "weights-and-init": (
        lambda w: w.train(None, "--weights", "a.safetensors", "--init", w.run),
        ("--weights and --init", "one of them"),
    ),
    "unknown-pretrained-weights": (
        lambda w: w.train(None, "--set", "pretrained=resnet19"),
        ("pretrained is 'resnet19'", "'resnet18'"),
    ),
    "freeze-without-init": (lambda w: w.train(None, "--freeze"), ("--freeze", "--init RUN")),
    # Images
    "colour-image-for-grey-model": (
        lambda w: ["predict", w.run, w.colour_image()],
        ("red.png", "3 channels", "1 channel", "--grey"),
    ),
    "colour-data-for-grey-model": (
        lambda w: [
            "evaluate",
            w.run,
            w.npz(
                x_train=np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8),
                y_train=np.arange(6) % 3,
                class_names=np.array(["left", "middle", "right"]),
            ),
        ],
        ("3 channels", "1 channel"),
    ),
    "image-of-a-million-million-pixels": (
        lambda w: ["predict", w.run, w.file("huge.bmp", bmp_header(1_000_000, 1_000_000))],
        ("huge.bmp", "64,000,000"),
    ),
    "unknown-fix": (
        lambda w: ["predict", w.run, grey_image(w.folder / "a.png"), "--fix", "invert,centre"],
        ("'centre'", "Did you mean 'center'?"),
    ),
    "show-is-a-file": (
        lambda w: ["predict", w.run, grey_image(w.folder / "a.png"), "--show", w.file("file", "")],
        ("file cannot be written", "--show"),
    ),
    "image-missing": (lambda w: ["predict", w.run, "no.png"], ("no.png", "does not exist")),
    "image-corrupt": (
        lambda w: ["predict", w.run, w.file("half.png", truncated(grey_image(w.folder / "whole.png")))],
        ("half.png", "replace"),
    ),
    "image-of-another-format": (lambda w: ["predict", w.run, w.file("a.png", "%PDF-1.4")], ("a.png", "PNG, JPEG")),
    "unknown-classes": (
        lambda w: ["evaluate", w.run, w.npz(x_train=BARS, y_train=np.arange(6) % 2)],
        ("does not know: 0, 1", "left, middle, right"),
    ),
    "missing-split": (
        lambda w: [
            "evaluate",
            w.run,
            w.npz(x_train=BARS, y_train=np.arange(6) % 2, class_names=np.array(["left", "right"])),
            "--split",
            "validation",
        ],
        ("no validation split", "--split"),
    ),
    # Options
    "unknown-device": (lambda w: w.train(None, "--device", "gpu"), ("'gpu'", "cuda")),
    "unknown-split": (lambda w: ["evaluate", w.run, w.data, "--split", "tets"], ("Did you mean 'test'?",)),
    "negative-seed": (lambda w: w.train(None, "--seed", "-1"), ("--seed", "0")),
    "seed-not-a-number": (lambda w: w.train(None, "--seed", "x"), ("--seed",)),
    "no-epochs": (lambda w: w.train(None, "--epochs", "0"), ("--epochs",)),
    "unknown-option": (lambda w: w.train(None, "--epcohs", "1"), ("--epcohs", "--epochs")),
    "unknown-command": (lambda w: ["trian", "digits"], ("'trian'", "'train'")),
    "train-without-data": (lambda w: ["train"], ("DATA",)),
    "predict-without-images": (lambda w: ["predict", w.run], ("IMAGE",)),
    "no-command": (lambda w: [], ("Usage: foveola", "Training:", "train")),
}


@pytest.fixture
def world(tmp_path, monkeypatch, toy_npz, tiny, toy_run) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEOLA_DATA", str(tmp_path))
    return World(tmp_path, toy_npz, tiny, toy_run)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("case", CASES)
def test_one_message_exit_code_2_and_no_files_left(case, world, foveola_command):
    arguments, fragments = CASES[case][0](world), CASES[case][1]
    before = tree(world.folder), tree(world.run)
    code, out, err = foveola_command(*arguments)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.count("foveola: ") + err.count("Usage: ") == 1
    for fragment in fragments:
        assert fragment in err
    assert (tree(world.folder), tree(world.run)) == before


@pytest.mark.parametrize("case", ["unknown-data-set", "out-below-a-file", "train-without-data", "model-truncated"])
def test_the_same_as_a_process(case, world):
    arguments, fragments = CASES[case][0](world), CASES[case][1]
    before = tree(world.folder)
    done = subprocess.run(
        [Path(sys.executable).with_name("foveola"), *arguments], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for fragment in fragments:
        assert fragment in done.stderr
    assert tree(world.folder) == before


def test_cuda_where_there_is_none(world, foveola_command, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = foveola_command("train", world.data, "--recipe", world.recipe, "--device", "cuda")
    assert (code, out) == (2, "")
    assert "no CUDA device" in err
    assert "--device cpu" in err
    assert tree(world.folder) == {}


def test_with_grey_a_colour_image_is_classified(world, foveola_command):
    code, out, _ = foveola_command("predict", world.run, world.colour_image(), "--grey", "--json")
    assert code == 0
    assert len(json.loads(out)["predictions"]) == 1


def test_with_skip_bad_a_damaged_image_is_skipped_and_recorded(world, foveola_command):
    folder = corrupt_image_folder(world)
    code, out, _ = foveola_command(*world.train(folder, "--skip-bad", 1, "--out", "run", "--json"))
    assert code == 0
    assert json.loads(out)["data"]["skipped"] == [str(folder / "dog" / "1.png")]


def test_what_a_training_skipped_is_skipped_when_its_run_is_exported(world, foveola_command):
    folder = corrupt_image_folder(world)
    assert foveola_command(*world.train(folder, "--skip-bad", 1, "--out", "run")).code == 0
    code, out, err = foveola_command("export", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["parity"]["images"] > 0
    (folder / "dog" / "1.png").with_name("other.png").write_bytes(b"not an image")
    assert foveola_command("export", "run").code == 2
