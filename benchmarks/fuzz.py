"""Fuzz every reader of files: damaged input is read, or refused with the project's own error, and nothing else.

    python benchmarks/fuzz.py --executions 1000000
    python benchmarks/fuzz.py --seed 3 --only 1234     # repeats one execution, with its traceback

Each execution draws a reader and a small valid input, damages it in one to eight places, and reads it. What lies behind
checksums or compression is damaged before it is packed, so that the damage reaches the code that reads it.
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from foveola.datasets import load
from foveola.errors import FoveolaError
from foveola.exports import onnx
from foveola.exports.allowlist import encode_field as field_of
from foveola.exports.allowlist import fields, inspect_onnx
from foveola.images import Dataset, ImageSet
from foveola.inputs.decode import decode
from foveola.models.metadata import ModelMetadata, parse_metadata
from foveola.recipe import load_recipe, recipe_names
from foveola.runs import Run
from foveola.sealed import seal, unsealed
from foveola.workflow.export import export

SLOW_SECONDS = 5.0  # of processor time: no small input may take so long
WEIGHTS = {
    "image": 8, "idx": 2, "gzip": 1, "npz": 4, "archive": 2, "cifar": 1, "recipe": 3, "folder": 1,
    "metadata": 3, "model": 2, "run": 3, "evaluation": 2, "history": 2, "onnx": 1, "graph": 2,
    "network": 2, "table": 3, "parquet": 1, "tar": 2,
}  # fmt: skip

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 9, 7), dtype=np.uint8)
NUMBERS = (0, 1, 2, 3, 4, 8, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
TEXTS = (
    b"True", b"-1", b"()", b"[]", b"None", b"1e999", b"'O'", b"'<U9'", b"'V8'", b"'|S0'", b"'>M8[s]'", b"{", b"[", b"'",
    b'"', b"\\", b"\n", b"=", b"#", b"nan", b"9" * 30, b"[" * 60, b"\xff\xfe", "é".encode(), b"..", b"/", b"\0",
)  # fmt: skip


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to eight changes, seldom none."""
    changed = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(8):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = chance.randrange(256)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + chance.randrange(1, 9)]
            case 4:
                changed[at:at] = chance.choice(TEXTS)
            case 5:
                number, form = chance.choice(NUMBERS), chance.choice(("<I", ">I", "<H", ">H"))
                changed[at : at + 4] = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
            case 6:
                start = chance.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + chance.randrange(1, 65)]
            case _:
                text = chance.choice(TEXTS)
                changed[at : at + len(text)] = text
    return bytes(changed)


def encoded(kind: str, mode: str, **options: object) -> bytes:
    image, buffer = Image.fromarray(PIXELS[0]).convert(mode), io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    frames, buffer = [Image.fromarray(frame) for frame in PIXELS], io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
IMAGES = [
    *(encoded("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    encoded("PNG", "L", exif=EXIF),
    *(encoded("JPEG", mode, exif=EXIF) for mode in ("L", "RGB", "CMYK")),
    encoded("JPEG", "RGB", progressive=True),
    *(encoded("WEBP", mode, exif=EXIF) for mode in ("RGB", "RGBA")),
    encoded("WEBP", "RGB", lossless=True),
    *(encoded("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(encoded("GIF", mode) for mode in ("L", "RGB")),
    *map(animated, ("GIF", "PNG", "WEBP")),
]


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


LABELS = np.array([0, 1, 0, 1], np.uint8)
ARRAYS = [
    {"x_train": PIXELS, "y_train": LABELS},
    {"x_train": PIXELS / 255, "y_train": LABELS.astype(float), "class_names": np.array(["a", "b"])},
    {
        "train_images": PIXELS[..., None],
        "train_labels": LABELS[:, None],
        "train_groups": np.array(["p", "q", "p", "q"]),
    },
    {"x_train": PIXELS, "y_train": np.array([b"cat", b"dog", b"cat", b"dog"]), "x_test": PIXELS, "y_test": LABELS},
    {"x_train": PIXELS > 99, "y_train": np.eye(2)[LABELS], "groups_train": LABELS},
]
RECIPES = [load_recipe(name).to_toml().encode() for name in recipe_names()]
NAMES = (
    "train",
    "test1",
    "Val",
    "a",
    "b",
    "license",
    "@eaDir",
    "caf\udce9",
    "cafe\u0301",
    "café",
    "x.png",
    "y.jpg",
    "README",
)


def fuzz_image(folder: Path, chance: random.Random) -> None:
    decode(damaged(chance.choice(IMAGES), chance), "damaged", max_pixels=10**6)


def fuzz_idx(folder: Path, chance: random.Random) -> None:
    parts = {"images-idx3": idx_bytes(PIXELS), "labels-idx1": idx_bytes(LABELS)}
    victim = chance.choice(list(parts))
    for name, data in parts.items():
        (folder / f"train-{name}-ubyte").write_bytes(damaged(data, chance) if name == victim else data)
    load(folder)


def fuzz_gzip(folder: Path, chance: random.Random) -> None:
    inside = chance.random() < 0.5
    for name, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
        data = idx_bytes(array)
        packed = gzip.compress(damaged(data, chance), 1) if inside else damaged(gzip.compress(data, 1), chance)
        (folder / f"train-{name}-ubyte.gz").write_bytes(packed)
    load(folder)


def fuzz_npz(folder: Path, chance: random.Random) -> None:
    arrays = chance.choice(ARRAYS)
    victim = chance.choice(list(arrays))
    with zipfile.ZipFile(folder / "own.npz", "w") as archive:
        for name, array in arrays.items():
            data = npy(array)
            archive.writestr(f"{name}.npy", damaged(data[:128], chance) + data[128:] if name == victim else data)
    load(folder / "own.npz")


def fuzz_archive(folder: Path, chance: random.Random) -> None:
    buffer = io.BytesIO()
    chance.choice((np.savez, np.savez_compressed))(buffer, **chance.choice(ARRAYS))
    (folder / "own.npz").write_bytes(damaged(buffer.getvalue(), chance))
    load(folder / "own.npz")


def fuzz_cifar(folder: Path, chance: random.Random) -> None:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for number, name in enumerate(names):
        data = bytes([number]) + bytes(3072)
        (folder / name).write_bytes(damaged(data, chance) if chance.random() < 0.3 else data)
    load(folder)


def fuzz_recipe(folder: Path, chance: random.Random) -> None:
    (folder / "own.toml").write_bytes(damaged(chance.choice(RECIPES), chance))
    load_recipe(folder / "own.toml")


def fuzz_folder(folder: Path, chance: random.Random) -> None:
    levels = [
        ("",),
        ("train", "test1", "Val"),
        chance.sample(NAMES, 3),
        chance.choice([("",), NAMES]),
        ("0", "1_2", "3_4"),
    ]
    levels = levels[chance.choice((0, 2)) :]
    for _ in range(chance.randrange(1, 25)):
        names = [chance.choice(NAMES if chance.random() < 0.02 else level) for level in levels]
        place = folder.joinpath(*names).with_suffix(chance.choice((".png",) * 30 + ("", ".txt")))
        image = damaged(IMAGES[1], chance) if chance.random() < 0.05 else IMAGES[1]
        with contextlib.suppress(OSError):  # a folder and a file want the same name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(image)
    load(
        folder,
        groups=chance.choice((None, None, None, "folder", r"(.)_", "(", "(.*)")),
        skip_bad=chance.choice((0, 2, 9)),
    )


def text_tables() -> list[bytes]:
    """Small tables of text: of paths, of pixels, of pixels in a cell."""
    pixels = [",".join(map(str, image.ravel().tolist())) for image in PIXELS]
    header = ",".join(f"pixel{number}" for number in range(PIXELS[0].size))
    rows = list(zip(LABELS.tolist(), pixels, strict=True))
    return [
        "".join(["file,class,split\n", *(f"{n}.png,{label},train\n" for n, label in enumerate(LABELS))]).encode(),
        "".join([f"label,{header}\n", *(f"{label},{row}\n" for label, row in rows)]).encode(),
        "".join(["emotion;pixels\n", *(f'{label};"{row.replace(",", " ")}"\n' for label, row in rows)]).encode(
            "utf-16"
        ),
    ]


def fuzz_table(folder: Path, chance: random.Random) -> None:
    for number in range(len(LABELS)):
        (folder / f"{number}.png").write_bytes(IMAGES[1])
    (folder / "own.csv").write_bytes(damaged(chance.choice(text_tables()), chance))
    load(folder / "own.csv", image_size=(9, 7), skip_bad=chance.choice((0, 2)))


def fuzz_parquet(folder: Path, chance: random.Random) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer, images = io.BytesIO(), [{"bytes": IMAGES[1], "path": None}] * len(LABELS)
    pq.write_table(pa.table({"image": images, "label": LABELS}), buffer, compression=chance.choice(("none", "zstd")))
    (folder / "own.parquet").write_bytes(damaged(buffer.getvalue(), chance))
    load(folder / "own.parquet", skip_bad=chance.choice((0, 2)))


def fuzz_tar(folder: Path, chance: random.Random) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, label in enumerate(LABELS):
            for name, content in ((f"{number}.png", IMAGES[1]), (f"{number}.json", b'{"label": %d}' % label)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    data = buffer.getvalue()
    if chance.random() < 0.8:  # one head, with the checksum of the damaged one
        at = 512 * chance.choice([2 * number for number in range(2 * len(LABELS))])
        head = bytearray(damaged(data[at : at + 512], chance)[:512].ljust(512, b"\0"))
        head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
        data = data[:at] + head + data[at + 512 :]
    (folder / "own.tar").write_bytes(data if chance.random() < 0.8 else damaged(data, chance))
    load(folder / "own.tar", skip_bad=chance.choice((0, 2)))


# A run's files and exports


@cache
def run_files() -> dict[str, bytes]:
    """The files of a small finished run, with its ONNX export."""
    import foveola
    from foveola.recipe import parse_recipe

    layers = [
        {"type": "Conv2D", "filters": 2, "padding": "same", "activation": "relu"},
        {"type": "MaxPool2D"},
        {"type": "Flatten"},
        {"type": "Dense", "units": "classes"},
    ]
    recipe = {"name": "small", "epochs": 2, "minimum_steps": 0, "validation": 0.3, "layers": layers}
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    data = Dataset("noise", ImageSet(images, np.arange(90) % 3, ("a", "b", "c")))
    with tempfile.TemporaryDirectory() as folder:
        run = foveola.train(data, parse_recipe(recipe), out=Path(folder) / "run", report=False, verbose=False)
        export(run.path, data=data, verbose=False)
        names = ("run.json", "evaluation.json", "history.csv", "model.safetensors", "exports/model.onnx")
        return {name: (run.path / name).read_bytes() for name in names}


def damaged_file(folder: Path, name: str, chance: random.Random) -> None:
    """A run of an older Foveola, without checksums, with one damaged file."""
    for other in ("run.json", name):
        content = run_files()[other]
        (folder / other).write_bytes(damaged(content, chance) if other == name else content)


def fuzz_metadata(folder: Path, chance: random.Random) -> None:
    content = damaged(metadata_text().encode(), chance)
    parse_metadata(content.decode("utf-8", "replace"), "damaged")


@cache
def metadata_text() -> str:
    return read_safetensors(run_files()["model.safetensors"])[1]["foveola"]


def read_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    size = int.from_bytes(content[:8], "little")
    return safetensors.numpy.load(content), json.loads(content[8 : 8 + size])["__metadata__"]


def fuzz_model(folder: Path, chance: random.Random) -> None:
    """Damaged as a whole; or its header or its metadata, whose seal then is right."""
    from foveola.models.classifier import open_classifier

    content = run_files()["model.safetensors"]
    weights, entries = read_safetensors(content)
    match chance.randrange(3):
        case 0:
            content = damaged(content, chance)
        case 1:  # an older file, without a seal
            content = safetensors.numpy.save(weights, {"foveola": entries["foveola"]})
            size = int.from_bytes(content[:8], "little")
            header = damaged(content[8 : 8 + size], chance)
            content = len(header).to_bytes(8, "little") + header + content[8 + size :]
        case _:
            text = damaged(entries["foveola"].encode(), chance).decode("utf-8", "replace")
            content = seal(safetensors.numpy.save(weights, unsealed({"foveola": text})))
    (folder / "model.safetensors").write_bytes(content)
    open_classifier(folder / "model.safetensors")


def fuzz_run(folder: Path, chance: random.Random) -> None:
    damaged_file(folder, "run.json", chance)
    Run.open(folder).status.to_json()


def fuzz_evaluation(folder: Path, chance: random.Random) -> None:
    damaged_file(folder, "evaluation.json", chance)
    Run.open(folder).evaluation.to_json()


def fuzz_history(folder: Path, chance: random.Random) -> None:
    damaged_file(folder, "history.csv", chance)
    list(Run.open(folder).history)


def fuzz_onnx(folder: Path, chance: random.Random) -> None:
    onnx.open_bytes(damaged(run_files()["exports/model.onnx"], chance), folder / "model.onnx", threads=1)


def fuzz_graph(folder: Path, chance: random.Random) -> None:
    """A damaged graph whose checksum is right."""
    open_damaged_graph(run_files()["exports/model.onnx"], folder, chance)


def fuzz_network(folder: Path, chance: random.Random) -> None:
    """As `fuzz_graph`, of a network with attention that torch has exported."""
    open_damaged_graph(own_network(), folder, chance)


@cache
def own_network() -> bytes:
    """The export of a network that is no list of layers."""
    import torch
    from torch import nn

    from foveola.exports import own_graph
    from foveola.models.classifier import Classifier

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 4, 4, 4)
            self.attention = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.attention(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    live = Classifier(Attention(), ModelMetadata(class_names=("a", "b", "c"), image_shape=(8, 8, 1)))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.safetensors", Path(folder) / "model.onnx"
        live.save(source)
        own_graph.write(source, live, target)
        return target.read_bytes()


def open_damaged_graph(content: bytes, folder: Path, chance: random.Random) -> None:
    contents = inspect_onnx(content)
    graph = damaged(bytes(contents.graph), chance)
    properties = dict(contents.properties)
    properties[onnx.DIGEST_KEY] = onnx.digest(graph, properties)
    head = b"".join(field for number, _, field in fields(memoryview(content)) if number not in (7, 14))
    entries = (field_of(1, key.encode()) + field_of(2, value.encode()) for key, value in properties.items())
    whole = head + field_of(7, graph) + b"".join(field_of(14, entry) for entry in entries)
    onnx.open_bytes(whole, folder / "model.onnx", threads=1)


FUZZERS: dict[str, Callable[[Path, random.Random], None]] = {name: globals()[f"fuzz_{name}"] for name in WEIGHTS}


def execute(number: int, seed: int, folder: Path) -> tuple[str, str]:
    """Reader and outcome of one execution: "read", "refused", or the name of what else was raised."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    reader = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    started = time.process_time()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as own, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FUZZERS[reader](Path(own), chance)
        outcome = "read"
    except FoveolaError:
        outcome = "refused"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    return reader, "slow" if time.process_time() - started > SLOW_SECONDS else outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=list(WEIGHTS), help="only these")
    parser.add_argument("--only", type=int, help="repeat this execution, with its traceback")
    arguments = parser.parse_args()
    for reader in set(WEIGHTS) - set(arguments.readers or WEIGHTS):
        del WEIGHTS[reader]
    memory = Path("/dev/shm")  # noqa: S108  # files that live for a millisecond need no disk
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if arguments.only is not None:
            chance = random.Random(f"{arguments.seed}/{arguments.only}")  # noqa: S311
            reader = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            FUZZERS[reader](Path(folder), chance)
            return 0
        outcomes: Counter[tuple[str, str]] = Counter()
        with contextlib.suppress(KeyboardInterrupt):  # what was done until then is reported
            for number in range(arguments.executions):
                reader, outcome = execute(number, arguments.seed, Path(folder))
                if outcome not in ("read", "refused"):
                    print(f"{reader}, execution {number}: {outcome}", flush=True)
                    outcome = "fault"
                outcomes[reader, outcome] += 1
    for reader in WEIGHTS:
        counts = {outcome: outcomes[reader, outcome] for outcome in ("read", "refused", "fault")}
        print(f"{reader:8}", "  ".join(f"{outcome} {count:,}" for outcome, count in counts.items()))
    faults = sum(count for (_, outcome), count in outcomes.items() if outcome == "fault")
    print(f"{outcomes.total():,} executions, {faults:,} faults")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
