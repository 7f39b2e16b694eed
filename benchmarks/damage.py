"""Alter every file of a run and its exports, and read it: refused by name, or the same answer as before.

    python benchmarks/damage.py --alterations 2000
    python benchmarks/damage.py --seed 3 --only 1234     # repeats one alteration, with its traceback

Two runs are trained on the embedded digits. Each alteration takes one file of the first run: a byte is changed, a bit is
flipped, the file is truncated, its halves are swapped, or the second run's file takes its place. Files of a run are
altered inside the run, whose SHA256SUMS names them; model files and exports also as copies that lie alone, which have
only their own checksums. An alteration is a fault if anything but the project's error is raised, if the message names
neither the file nor its folder, or if the answer is another one.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import foveola
from foveola.errors import FoveolaError
from foveola.exports import safetensors
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe, parse_recipe
from foveola.runs import Run
from foveola.workflow.export import export

KINDS = ("byte", "bit", "cut", "halves", "exchange")
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
RECIPE = {
    "name": "small",
    "epochs": 2,
    "batch_size": 16,
    "minimum_steps": 0,
    "validation": 0.4,
    "layers": [
        {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
        {"type": "MaxPool2D"},
        {"type": "Flatten"},
        {"type": "Dense", "units": "classes"},
    ],
}


@dataclass(frozen=True)
class Reader:
    """A file, by its name in the run, and what a user learns from it; `alone`: a copy without SHA256SUMS."""

    name: str
    read: Callable[[Path], object]
    alone: bool = False


def _logits(path: Path) -> bytes:
    outputs = foveola.open(path).predict_outputs(IMAGES)
    return outputs.logits.tobytes()


READERS = (
    Reader("run.json", lambda path: Run.open(path.parent).status.to_json()),
    Reader("evaluation.json", lambda path: Run.open(path.parent).evaluation.to_json()),
    Reader("history.csv", lambda path: Run.open(path.parent).history),
    Reader("recipe.toml", lambda path: load_recipe(path).to_toml()),
    Reader("model.safetensors", lambda path: _logits(path.parent)),
    Reader("exports/model.onnx", _logits),
    Reader("exports/model.safetensors", _logits),
    Reader("model.safetensors", _logits, alone=True),
    Reader("model.safetensors", lambda path: _copied(path), alone=True),
    Reader("exports/model.onnx", _logits, alone=True),
    Reader("SHA256SUMS", lambda path: [Run.open(path.parent).evaluation.to_json(), _logits(path.parent)]),
    Reader("exports/SHA256SUMS", lambda path: _logits(path.parent / "model.onnx")),
)


def _copied(path: Path) -> bytes:
    safetensors.write(path, foveola.open(path), path.with_name("copy.safetensors"))
    return path.with_name("copy.safetensors").read_bytes()


def make_runs(folder: Path, images: int = 200) -> tuple[Path, Path]:
    """Two finished runs on the same data, with exports."""
    digits = foveola.load("digits")
    some = digits.train.take(np.arange(images))
    data = Dataset("some digits", ImageSet(some.images, some.labels, some.class_names), digits.test)
    paths = []
    for seed in (0, 1):
        recipe = parse_recipe(RECIPE | {"epochs": 2 + seed})
        run = foveola.train(data, recipe, out=folder / f"run-{seed}", seed=seed, report=False, verbose=False)
        for format in ("onnx", "safetensors"):
            export(run.path, format, data=data, verbose=False)
        paths.append(run.path)
    return paths[0], paths[1]


def altered(content: bytes, other: bytes, kind: str, chance: random.Random) -> bytes:
    """The content with one alteration, which always changes it."""
    changed, at = bytearray(content), chance.randrange(len(content))
    if kind == "byte":
        changed[at] = (changed[at] + chance.randrange(1, 256)) % 256
    elif kind == "bit":
        changed[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "halves":
        middle = len(content) // 2
        changed = changed[middle:] + changed[:middle]
    else:
        changed = bytearray(other)
    return bytes(changed)


class Trial:
    """Alters the files of a run, one at a time, and restores them."""

    def __init__(self, runs: Sequence[Path], folder: Path) -> None:
        self.run, self.other = runs
        self.alone = folder / "alone"
        self.alone.mkdir()
        self.answers = [reader.read(self._place(reader)) for reader in READERS]

    def _place(self, reader: Reader) -> Path:
        source = self.run / reader.name
        if not reader.alone:
            return source
        return Path(shutil.copy(source, self.alone / source.name))

    def choose(self, number: int, seed: int) -> tuple[int, str, random.Random]:
        """Reader and kind of an alteration, in turns, and the source of chance for its place."""
        index = number % len(READERS)
        kinds = KINDS[:-1] if READERS[index].alone else KINDS
        kind = kinds[number // len(READERS) % len(kinds)]
        return index, kind, random.Random(f"{seed}/{number}")  # noqa: S311

    def alter(self, number: int, seed: int) -> tuple[str, str]:
        """Alter a file, read it, restore it; what was altered how, and "refused", "same answer" or the fault."""
        index, kind, chance = self.choose(number, seed)
        reader = READERS[index]
        path = self._place(reader)
        before = path.read_bytes()
        what = f"{'alone/' if reader.alone else ''}{reader.name}"
        try:
            path.write_bytes(altered(before, (self.other / reader.name).read_bytes(), kind, chance))
            answer = reader.read(path)
        except FoveolaError as error:
            outcome = "refused" if path.parent.name in str(error) or path.name in str(error) else f"not named: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        else:
            outcome = "same answer" if answer == self.answers[index] else "another answer"
        finally:
            path.write_bytes(before)
        return f"{what} {kind}", outcome

    def repeat(self, number: int, seed: int) -> None:
        index, kind, chance = self.choose(number, seed)
        path = self._place(READERS[index])
        path.write_bytes(altered(path.read_bytes(), (self.other / READERS[index].name).read_bytes(), kind, chance))
        print(READERS[index].read(path) == self.answers[index])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alterations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this alteration, with its traceback")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(make_runs(Path(folder)), Path(folder))
        if arguments.only is not None:
            trial.repeat(arguments.only, arguments.seed)
            return 0
        outcomes: Counter[tuple[str, str]] = Counter()
        for number in range(arguments.alterations):
            what, outcome = trial.alter(number, arguments.seed)
            if outcome not in ("refused", "same answer"):
                print(f"{what}, alteration {number}: {outcome}", flush=True)
                outcome = "fault"
            outcomes[what, outcome] += 1
    for what in sorted({what for what, _ in outcomes}):
        counts = {outcome: outcomes[what, outcome] for outcome in ("refused", "same answer", "fault")}
        print(f"{what:38}", "  ".join(f"{outcome} {count:,}" for outcome, count in counts.items()))
    totals = Counter[str]()
    for (_, outcome), count in outcomes.items():
        totals[outcome] += count
    print(f"{outcomes.total():,} alterations:", ", ".join(f"{count:,} {outcome}" for outcome, count in totals.items()))
    return min(totals["fault"], 1)


if __name__ == "__main__":
    sys.exit(main())
