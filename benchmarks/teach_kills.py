"""Kill `foveola teach` at random moments while pictures are added, moved, deleted and undone: is every one there?

    python benchmarks/teach_kills.py --kills 50

A picture counts as lost if it was acknowledged (201) and is neither in a class folder nor in the bin, with the pixels
that were sent. A file counts as half if a reader of image folders would take it for a picture, and it cannot be
decoded. All moments are drawn from --seed. Ends with 1 if anything is lost or half.
"""

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import numpy as np
from PIL import Image

from foveola.errors import DataError
from foveola.inputs.decode import read_first_frame
from foveola.inputs.find import is_image, is_junk
from foveola.teaching.project import Project

UPLOADERS = 3
CLASSES = ("cup", "mug", "glass")


@dataclass
class Sent:
    """Hashes of the pixels of acknowledged pictures, and how many requests failed when the server was killed."""

    acknowledged: set[bytes] = field(default_factory=set)
    cut_off: int = 0


def unique_picture(number: int) -> np.ndarray:
    """Pixels, uint8 H×W×3, that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    pixels[0, 0] = [number & 255, number >> 8 & 255, number >> 16 & 255]
    return pixels


def start(folder: Path) -> tuple[subprocess.Popen, str]:
    """A server in a process group of its own, and its URL."""
    command = [sys.executable, "-m", "foveola", "teach", folder, "--port", "0", "--no-browser", "--json", "--quiet"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        if not line:
            raise SystemExit("The server did not start.")
        text += line
    return process, json.loads(text)["url"]


def upload(url: str, numbers: "Numbers", sent: Sent) -> None:
    """Add pictures until the server is gone."""
    with httpx.Client(base_url=url, timeout=60) as client, suppress(httpx.HTTPError):
        while True:
            number = numbers.next()
            pixels = unique_picture(number)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            query = {"class": CLASSES[number % 2]} | ({"recording": str(number // 20)} if number % 3 else {})
            try:
                answer = client.post(
                    "/project/pictures", params=query, content=buffer.getvalue(), headers={"Content-Type": "image/png"}
                )
            except httpx.HTTPError:
                sent.cut_off += 1
                raise
            if answer.status_code == 201:
                sent.acknowledged.add(pixels.tobytes())
            elif answer.status_code != 503:
                raise SystemExit(f"A picture was refused: {answer.status_code} {answer.text}")


class Numbers:
    """Counts, for several threads."""

    def __init__(self) -> None:
        self._lock, self._number = threading.Lock(), 0

    def next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number


def change(url: str, chance: random.Random) -> None:
    """Move, delete and undo until the server is gone."""
    with httpx.Client(base_url=url, timeout=60) as client, suppress(httpx.HTTPError):
        while True:
            name = chance.choice(CLASSES)
            listed = client.get("/project/pictures", params={"class": name, "count": 1000}).json().get("pictures", [])
            some = [one["id"] for one in chance.sample(listed, min(len(listed), 5))]
            kind = chance.choice(("move", "delete", "undo", "rename"))
            if kind == "undo":
                client.post("/project/undo", json={})
            elif kind == "rename":
                client.post("/project/classes/rename", json={"name": "glass", "to": "beaker"})
                client.post("/project/classes/rename", json={"name": "beaker", "to": "glass"})
            elif some:
                client.post(
                    f"/project/pictures/{kind}", json={"ids": some} | ({"to": "glass"} if kind == "move" else {})
                )


def pixels_in(folder: Path, known: dict[tuple[int, int], bytes]) -> tuple[set[bytes], int]:
    """Pixels of all pictures in class folders and bin, and how many files are half."""
    found, half = set(), 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name in (".foveola", "bin") or not is_junk(name)]
        for name in names:
            path = Path(root, name)
            if is_junk(name) or not is_image(path) or "thumbnails" in path.parts:
                continue
            place = (path.stat().st_ino, path.stat().st_mtime_ns)
            if place not in known:
                try:
                    known[place] = read_first_frame(path).pixels.tobytes()
                except DataError:
                    half += 1
                    continue
            found.add(known[place])
    return found, half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, numbers, sent = random.Random(arguments.seed), Numbers(), Sent()  # noqa: S311
    lost = half = temporaries = 0
    with tempfile.TemporaryDirectory(prefix="teach-kills-") as place:
        folder, known = Path(place, "pictures"), {}
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
        for kill in range(arguments.kills):
            process, url = start(folder)
            threads = [threading.Thread(target=upload, args=(url, numbers, sent)) for _ in range(UPLOADERS)]
            changes = random.Random(arguments.seed * 1000 + kill)  # noqa: S311
            threads.append(threading.Thread(target=change, args=(url, changes)))
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.05, 3))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for thread in threads:
                thread.join()
            temporaries += sum(path.name.endswith(".tmp") for one in folder.iterdir() for path in one.glob(".*"))
            found, broken = pixels_in(folder, known)
            lost, half = lost + len(sent.acknowledged - found), half + broken
            print(f"kill {kill + 1}: {len(sent.acknowledged):,} acknowledged, {lost} lost, {half} half", flush=True)
        project = Project(folder)  # removes what was being written
        left = sum(path.name.endswith(".tmp") for one in folder.iterdir() for path in one.glob(".*.tmp"))
        undone = 0
        while project.undo() is not None:
            undone += 1
        found, broken = pixels_in(folder, known)
        lost, half = lost + len(sent.acknowledged - found), half + broken
        print(
            f"{arguments.kills} kills, {len(sent.acknowledged):,} pictures acknowledged, {sent.cut_off} requests cut "
            f"off: {lost} lost, {half} half files. {temporaries} temporary files were left by kills, {left} after the "
            f"next start; {undone} changes were undone afterwards."
        )
        project.close()
    sys.exit(bool(lost or half or left))


if __name__ == "__main__":
    main()
