"""Several processes under torchrun: do they compute what one does, how fast, and what if one of them is killed?

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/scaling.py equality [--steps 200]
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/scaling.py speed [--steps 60] [--rounds 3]
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/scaling.py kills [--rounds 20] [--seed 0]

`equality` trains on 5,000 images of MNIST by two processes and by one, in float64 and in float32, and prints the
largest difference of a weight; beside it, that of one process with two threads from one with one. `speed` prints
milliseconds a step, and the efficiency by the clock and by the processor time of process 0, which leaves out waiting
and says more on a busy machine. `kills` sends SIGKILL to one of two processes at random moments, measures how soon
torchrun ends, resumes, and compares the model file with that of an uninterrupted training, byte for byte; in every
other round torchrun itself restarts the processes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Case = tuple[str, dict[str, Any]]

EVERYTHING = {"shift": 2, "rotation": 10, "zoom": 0.1, "flip": True, "cutout": 4, "mixup": 0.4}
EQUALITY: dict[str, Case] = {
    "fast": ("fast", {}),
    "lenet5": ("lenet5", {}),
    "mlp": ("mlp", {}),
    "kmnist": ("kmnist", {}),
    "mlp, SGD": ("mlp", {"optimizer": "sgd", "learning_rate": 0.02}),
    "fast, all augmentation, class weights": ("fast", {"augment": EVERYTHING, "class_weights": "balanced"}),
}
SPEED: dict[str, Case] = {
    "fast": ("fast", {}),
    "fast, batches of 512": ("fast", {"batch_size": 512}),
    "best": ("best", {}),
    "mlp": ("mlp", {}),
    "west": ("west", {}),
}
TRAINING = ("digits", "--recipe", "fast", "--checkpoint-every", "0.1s", "--no-report", "--quiet", "--set", "steps=400")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["equality", "speed", "kills", "worker"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.question == "worker":
        work(json.loads(options.case))
    elif options.question == "equality":
        equality(options.steps or 200)
    elif options.question == "speed":
        speed(options.steps or 60, options.rounds or 3)
    else:
        kills(options.rounds or 20, options.seed)


def torchrun(processes: int, *options: str) -> list[str]:
    """Start of a command; the port is one that is free."""
    started = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*started, "--standalone", *options]


# What two processes compute


def equality(steps: int) -> None:
    print("| recipe | two processes, float64 | two processes, float32 | two threads, float32 |")
    print("|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in EQUALITY.items():
            found = {}
            for processes, threads, double in ((1, 1, True), (2, 1, True), (1, 1, False), (2, 1, False), (1, 2, False)):
                path = Path(folder) / f"{processes}-{threads}-{double}.safetensors"
                run_case(processes, case, threads=threads, double=double, steps=steps, weights=str(path))
                found[processes, threads, double] = path
            differences = (
                difference(found[1, 1, double], found[processes, threads, double])
                for processes, threads, double in ((2, 1, True), (2, 1, False), (1, 2, False))
            )
            print(f"| `{name}` | {' | '.join(f'{value:.1e}' for value in differences)} |", flush=True)


def difference(first: Path, second: Path) -> float:
    """The largest of a weight."""
    from safetensors.torch import load_file

    weights, others = load_file(first), load_file(second)
    return max(float((weights[name].double() - others[name].double()).abs().max()) for name in weights)


# How fast they are


def speed(steps: int, rounds: int) -> None:
    print("| recipe | one, ms a step | two, ms a step | efficiency | of the processor | gradients, kB | sum, ms |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, case in SPEED.items():
        answers: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for processes in (1, 2):
                answers[processes].append(run_case(processes, case, threads=1, double=False, steps=steps, weights=""))
        one, two = (statistics.median(answer["step"] for answer in answers[processes]) for processes in (1, 2))
        alone, beside = (statistics.median(answer["busy"] for answer in answers[processes]) for processes in (1, 2))
        size, sums = (statistics.median(answer[key] for answer in answers[2]) for key in ("bytes", "sums"))
        row = (f"`{name}`", f"{1e3 * one:.2f}", f"{1e3 * two:.2f}", f"{one / two / 2:.0%}", f"{alone / beside / 2:.0%}")
        print(f"| {' | '.join(row)} | {size / 1e3:.0f} | {1e3 * sums:.2f} |", flush=True)


def run_case(processes: int, case: Case, **settings: object) -> dict[str, float]:
    """What process 0 of so many answers."""
    arguments = [__file__, "worker", "--case", json.dumps({"case": case, **settings})]
    command = [sys.executable, *arguments] if processes == 1 else [*torchrun(processes), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings["threads"])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def work(settings: dict[str, Any]) -> None:
    """Train by all processes; process 0 prints seconds a step, saves the weights, and measures the sums alone."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    import foveola
    from foveola.recipe import load_recipe
    from foveola.training.build import build_classifier
    from foveola.training.callbacks import Callback
    from foveola.training.distributed import join
    from foveola.training.loop import fit

    class Timer(Callback):
        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, fit: Any) -> None:
            self.times.append((time.perf_counter(), time.process_time()))

    torch.set_num_threads(settings["threads"])
    device, timer = torch.device("cpu"), Timer()
    processes = join(device)
    name, overrides = settings["case"]
    recipe = load_recipe(name, {**overrides, "steps": settings["steps"], "minimum_steps": 0, "precision": "float32"})
    images = foveola.load("mnist").train.take(np.arange(5000))
    classifier = build_classifier(recipe, images, 0)
    if settings["double"]:
        classifier.double()
    fit(
        classifier, images, None, recipe, seed=0, device=device, precision=torch.float32,
        flip=recipe.augment.flip is True, callbacks=[timer], processes=processes,
    )  # fmt: skip
    gradients = [torch.zeros_like(parameter) for parameter in classifier.network.parameters()]
    sums = []
    for _ in range(50 if processes.size > 1 else 0):
        start = time.perf_counter()
        processes.sum_tensors(gradients)
        sums.append(time.perf_counter() - start)
    if not processes.leads:
        return
    if settings["weights"]:
        save_file({name: w.contiguous() for name, w in classifier.network.state_dict().items()}, settings["weights"])
    size = 4 * sum(gradient.numel() for gradient in gradients)
    step, busy = np.median(np.diff(timer.times, axis=0), axis=0).tolist()
    print(json.dumps({"step": step, "busy": busy, "bytes": size, "sums": statistics.median(sums) if sums else 0.0}))


# What if one of them is killed


def kills(rounds: int, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - no secret
    folder = Path(tempfile.mkdtemp())
    process = start_training(folder / "reference", 0)
    wait_for_checkpoint(process, folder / "reference")
    begun = time.monotonic()
    if finish(process):
        raise SystemExit("the uninterrupted training failed")
    duration = time.monotonic() - begun
    expected = (folder / "reference" / "model.safetensors").read_bytes()
    stopped, unequal, number = [], 0, 0
    while number < rounds:
        restarts = 3 if number % 2 else 0
        shutil.rmtree(run := folder / "run", ignore_errors=True)
        process = start_training(run, restarts)
        killed = kill_one(process, run, draw.uniform(0.0, duration), draw)
        if killed is None:  # it had ended before
            finish(process)
            continue
        code = finish(process)
        if not restarts:
            stopped.append(time.monotonic() - killed)
            if code == 0:
                raise SystemExit("torchrun ended with 0 although a process was killed")
            code = finish(start(run_arguments=("--resume", str(run), "--quiet")))
        equal = code == 0 and (run / "model.safetensors").read_bytes() == expected
        unequal += not equal
        number += 1
        print(f"{number}: {'restarted' if restarts else f'ended after {stopped[-1]:.1f} s, resumed'}; ", end="")
        print("equal" if equal else f"DIFFERENT, code {code}", flush=True)
    print(f"{rounds} kills: torchrun ended within {max(stopped):.1f} s; {unequal} results differ")
    shutil.rmtree(folder)
    sys.exit(unequal > 0)


def start_training(run: Path, restarts: int) -> "subprocess.Popen[str]":
    return start(run_arguments=(*TRAINING, "--out", str(run)), restarts=restarts)


def start(run_arguments: tuple[str, ...], restarts: int = 0) -> "subprocess.Popen[str]":
    command = [*torchrun(2, "--max-restarts", str(restarts)), "-m", "foveola", "train", *run_arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> int:
    process.communicate(timeout=600)
    return process.returncode


def kill_one(process: "subprocess.Popen[str]", run: Path, delay: float, draw: random.Random) -> float | None:
    """Kill a process some time after the training has begun; when, or None if it has ended before."""
    wait_for_checkpoint(process, run)
    time.sleep(delay)
    if process.poll() is not None or not (run / "checkpoint").exists():
        return None
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(draw.choice(workers)), signal.SIGKILL)
    return time.monotonic()


def wait_for_checkpoint(process: "subprocess.Popen[str]", run: Path) -> None:
    while process.poll() is None and not (run / "checkpoint" / "state.safetensors").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    main()
