"""Fuzz checkpoints and run folders: a damaged file is refused with ModelError, or gives what the whole one gives.

    python benchmarks/fuzz_runs.py --executions 200000
    python benchmarks/fuzz_runs.py --seed 3 --only 1234     # repeats one execution, with its traceback

Each execution damages one file and reads the folder as Foveola does:

    state      the checkpoint's bytes; it must be refused, or restore the identical state
    sealed     the checkpoint's bytes or its JSON, with a checksum that fits: it must be refused, or restore a state
    request    request.json, as `--resume` reads it
    publish    publish.json, as `--resume` reads it, which moves the files that it names: no other may change
    run        run.json and evaluation.json
    recipe     recipe.toml
"""

import argparse
import contextlib
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import foveola
from foveola.claims import Claim
from foveola.errors import FoveolaError, ModelError, RecipeError
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe
from foveola.runs import Run
from foveola.sealed import seal, unsealed
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback, EarlyStopping, History
from foveola.training.checkpoint import Checkpoint
from foveola.training.loop import Fit, fit
from foveola.training.step import TrainStep
from fuzz import damaged

WEIGHTS = {"state": 8, "sealed": 8, "request": 2, "publish": 2, "run": 3, "recipe": 1}
SLOW_SECONDS = 5.0  # of processor time
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, 1e308, "", "x", "network.0", "../x", "/x", "\0", [], {},
    [[]], {"tensor": "x"}, {"array": "x"}, {"values": {}}, [0] * 50,
)  # fmt: skip


class World:
    """A small training with a checkpoint, and a finished run, to be damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = np.random.default_rng(0)
        labels = np.arange(48) % 3
        pictures = generator.integers(0, 256, (48, 6, 6, 1), dtype=np.uint8)
        self.images = ImageSet(pictures, labels, ("a", "b", "c"))
        self.recipe = load_recipe("mlp", {
            "epochs": 2, "batch_size": 16, "precision": "float32",
            "layers": [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}],
        })  # fmt: skip
        self.fit, self.step, self.callbacks = self._train()
        self.path = folder / "state.safetensors"
        self.content = self.path.read_bytes()
        self.restore()
        self.expected = self._state()
        run = foveola.train(Dataset("made", self.images), self.recipe, out=folder / "run", report=False, verbose=False)
        self.run = {path.name: path.read_bytes() for path in run.path.iterdir() if path.suffix != ".png"}

    def _train(self) -> tuple[Fit, TrainStep, list[Callback]]:
        """Train with a checkpoint after the fourth step; what it is restored into."""
        kept: list[TrainStep] = []

        class Saver(Checkpoint):
            def after_step(self, fit: Fit, step: TrainStep, callbacks: Any) -> None:
                kept[:] = [step]
                if fit.step == 4:
                    self.save(fit, step, callbacks)

        callbacks: list[Callback] = [History(), EarlyStopping("val_loss", 2, restore=True)]
        state = fit(
            build_classifier(self.recipe, self.images, 0), self.images, self.images, self.recipe, seed=0,
            device=torch.device("cpu"), precision=torch.float32, callbacks=callbacks,
            checkpoint=Saver(self.folder / "state.safetensors", 1e9, "this", {}),
        )  # fmt: skip
        return state, kept[0], callbacks

    def restore(self) -> None:
        Checkpoint(self.path, 30.0, "this", {}).restore(self.fit, self.step, self.callbacks)

    def _state(self) -> dict[str, Any]:
        network = self.fit.classifier.network.state_dict()
        tensors: dict[str, Tensor] = {**network, **self.step.state}
        for number, optimizer in enumerate(self.step.optimizers):
            tensors |= {f"{number}.{index}": tensor for index, tensor in enumerate(optimizer.state)}
        history, stopping = self.callbacks
        return {
            "tensors": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
            "fit": (self.fit.epoch, self.fit.step, self.fit.stop, dict(self.fit.metrics), self.fit.epoch_ended),
            "rows": list(history.state_dict()["rows"]),
            "best": {name: value.numpy().tobytes() for name, value in stopping.state_dict()["weights"].items()},
            "random": (random.random(), np.random.random(), float(torch.rand(1))),  # noqa: S311
        }

    def is_restored(self) -> bool:
        return self._state() == self.expected


def resealed(content: bytes, chance: random.Random) -> bytes:
    """A checkpoint that is damaged, in its bytes or in its JSON, and has a checksum that fits."""
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    match chance.randrange(3):
        case 0:
            body = damaged(body, chance)
        case 1:
            state = json.loads(header["__metadata__"]["foveola.checkpoint"])
            header["__metadata__"]["foveola.checkpoint"] = json.dumps(changed(state, chance))
        case 2:
            header = changed(header, chance)
    has_metadata = isinstance(header, dict) and isinstance(header.get("__metadata__"), dict)
    if has_metadata:
        header["__metadata__"] |= unsealed({})
    text = json.dumps(header, separators=(",", ":")).encode()
    altered = len(text).to_bytes(8, "little") + text + body
    return seal(altered) if has_metadata else altered  # without metadata there is no place for a checksum


def changed(document: Any, chance: random.Random) -> Any:
    """A JSON document with one to three of its values replaced, removed or repeated."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2, 3))):
        nodes = _containers(document)
        if not nodes:
            return document
        node = chance.choice(nodes)
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        match chance.randrange(4):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[str(chance.choice(VALUES))[:20]] = node.pop(key)
            case 1 if isinstance(node, list):
                node.insert(key, copy.deepcopy(node[key]))
            case _:
                node[key] = copy.deepcopy(chance.choice(VALUES))
    return document


def _containers(value: Any) -> list[Any]:
    """Every list and object inside that is not empty."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if inner else []), *(found for each in inner for found in _containers(each))]


def text_damage(content: bytes, chance: random.Random) -> bytes:
    """A JSON file, damaged in its bytes or in its values."""
    if chance.random() < 0.5:
        return damaged(content, chance)
    return json.dumps(changed(json.loads(content), chance)).encode()


def fuzz_state(world: World, chance: random.Random) -> str:
    world.path.write_bytes(damaged(world.content, chance))
    world.restore()
    assert world.is_restored(), "a damaged checkpoint was accepted, and gives another state"
    return "read"


def fuzz_sealed(world: World, chance: random.Random) -> str:
    world.path.write_bytes(resealed(world.content, chance))
    world.restore()
    return "read"


REQUEST = b"""{"format": 1, "data": "digits", "recipe": null, "overrides": {}, "seed": 0, "device": "cpu", "threads": 1,
"report": true, "checkpoint_every": 30.0, "fingerprint": "abc", "network": false, "callbacks": []}"""


def _unfinished(world: World, name: str, content: bytes) -> Path:
    run = world.folder / "unfinished"
    shutil.rmtree(run, ignore_errors=True)
    (run / "checkpoint" / "result").mkdir(parents=True)
    (run / "checkpoint" / name).write_bytes(content)
    return run


def fuzz_request(world: World, chance: random.Random) -> str:
    run = _unfinished(world, "request.json", text_damage(REQUEST, chance))
    claim = Claim.resume(run)
    assert claim is not None
    with claim:
        _ = claim.request
    return "read"


def fuzz_publish(world: World, chance: random.Random) -> str:
    names = sorted(world.run)
    run = _unfinished(world, "publish.json", text_damage(json.dumps(names).encode(), chance))
    for name, content in world.run.items():
        (run / "checkpoint" / "result" / name).write_bytes(content)
    outside = world.folder / "x"
    outside.write_text("two years of work")
    (run / "thesis.txt").write_text("two years of work")
    try:
        Claim.resume(run)
        assert {name: (run / name).read_bytes() for name in world.run} == world.run, "files were lost"
    finally:
        assert outside.read_text() == (run / "thesis.txt").read_text() == "two years of work"
    return "read"


def fuzz_run(world: World, chance: random.Random) -> str:
    run = world.folder / "damaged"
    run.mkdir(exist_ok=True)
    name = chance.choice(("run.json", "evaluation.json"))
    for other in ("run.json", "evaluation.json"):
        content = world.run[other]
        (run / other).write_bytes(text_damage(content, chance) if other == name else content)
    opened = Run.open(run)
    _ = opened.status, opened.evaluation
    return "read"


def fuzz_recipe(world: World, chance: random.Random) -> str:
    path = world.folder / "recipe.toml"
    path.write_bytes(damaged(world.run["recipe.toml"], chance))
    load_recipe(path)
    return "read"


TARGETS: dict[str, Callable[[World, random.Random], str]] = {
    "state": fuzz_state, "sealed": fuzz_sealed, "request": fuzz_request, "publish": fuzz_publish, "run": fuzz_run,
    "recipe": fuzz_recipe,
}  # fmt: skip


def execute(world: World, number: int, seed: int) -> tuple[str, str]:
    """Damage a file and read it: the target, and "read" or "refused"; anything else is raised."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    target = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return target, TARGETS[target](world, chance)
    except FoveolaError as error:
        assert isinstance(error, RecipeError if target == "recipe" else ModelError), repr(error)
        return target, "refused"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one execution, with its traceback")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        if options.only is not None:
            print(execute(world, options.only, options.seed))
            return 0
        for number in range(options.executions):
            start = time.process_time()
            try:
                target, outcome = execute(world, number, options.seed)
                counts[f"{target} {outcome}"] += 1
            except Exception as error:
                kind = f"{type(error).__name__}: {str(error)[:80]}"
                faults[kind] += 1
                if faults[kind] == 1:
                    print(f"execution {number}: {kind}", flush=True)
            if time.process_time() - start > SLOW_SECONDS:
                print(f"execution {number}: slow", flush=True)
                faults["slow"] += 1
    print(json.dumps({"executions": options.executions, "outcomes": dict(sorted(counts.items())), "faults": faults}))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
