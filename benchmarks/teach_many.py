"""10,000 pictures in one class of `foveola teach`: listed, searched for suspects through the page's routes, none lost?

    python benchmarks/teach_many.py

Two kinds of made pictures, discs and squares in noise, each unlike all others: 10,000 in the class "disc", of which
--wrong are squares, and 5,000 in the class "square". Prints how long the page's first request, the listing of all
pictures, a change and the search for suspects take, and how many of the wrong ones are among as many suspects. Ends
with 1 if a file or an entry of the listing is lost, or its content has changed.
"""

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import httpx2 as httpx
import numpy as np
from PIL import Image

from teach_kills import start

DISCS, SQUARES = 10_000, 5_000
SIDE = 32


def write_picture(path: Path, round_: bool, random: np.random.Generator) -> None:
    """A disc or a square somewhere in noise, SIDE×SIDE, in colours that say nothing."""
    pixels = random.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    y, x = random.integers(8, SIDE - 8, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(rows - y, columns - x) if round_ else np.maximum(abs(rows - y), abs(columns - x))
    pixels[distance <= 6] += random.integers(60, 136, 3, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make(folder: Path, wrong: int, seed: int) -> set[str]:
    """Fill a project; the names of the squares among the discs."""
    random = np.random.default_rng(seed)
    names = set()
    for name, count in (("disc", DISCS), ("square", SQUARES)):
        (folder / name).mkdir(parents=True)
        misplaced = set(random.choice(count, wrong if name == "disc" else 0, replace=False).tolist())
        for number in range(count):
            path = folder / name / f"{number:05d}.png"
            write_picture(path, (name == "disc") != (number in misplaced), random)
            names |= {f"{name}/{path.name}"} if number in misplaced else set()
    return names


def contents(folder: Path) -> dict[str, str]:
    """The hash of every picture, by class and name."""
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*/*.png")
    }


def list_all(client: httpx.Client) -> list[str]:
    """The ids of all pictures, as the page asks for them."""
    found = []
    for one in client.get("/project").json()["classes"]:
        for first in range(0, one["count"], 1000):
            query = {"class": one["name"], "from": first, "count": 1000}
            found += [picture["id"] for picture in client.get("/project/pictures", params=query).json()["pictures"]]
    return found


def timed(function, *arguments):
    """What a function returns, and its seconds."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def search(client: httpx.Client) -> dict:
    """The job of an audit, once it has ended."""
    job = client.post("/project/audit", json={}).json()
    while job["state"] == "running":
        time.sleep(0.5)
        job = client.get("/project").json()["job"]
    return job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wrong", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teach-many-") as place:
        folder = Path(place, "pictures")
        wrong = make(folder, arguments.wrong, arguments.seed)
        before = contents(folder)
        (process, url), ready = timed(start, folder)
        with httpx.Client(base_url=url, timeout=600) as client:
            document, first = timed(lambda: client.get("/project").json())
            identifiers, listing = timed(list_all, client)
            moved = identifiers[:50]
            _, change = timed(lambda: client.post("/project/pictures/delete", json={"ids": moved}).raise_for_status())
            _, undo = timed(lambda: client.post("/project/undo", json={}).raise_for_status())
            job, searching = timed(search, client)
            after = list_all(client)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        suspects = (job["result"] or {}).get("suspects", [])[: len(wrong)]
        by_id = {hashlib.sha256(name.encode()).hexdigest()[:16]: name for name in before}
        found = sum(by_id.get(suspect["id"]) in wrong for suspect in suspects)
        lost = len(set(by_id).symmetric_difference(after)) + (before != contents(folder))
        print(
            f"{document['pictures']:,} pictures, {document['classes'][0]['count']:,} of one class: ready in "
            f"{ready:.1f} s, first answer {first:.2f} s, all listed in {listing:.2f} s, 50 deleted in {change:.2f} s, "
            f"undone in {undo:.2f} s, searched in {searching:.0f} s ({job['state']}; {job['error'] or ''}"
            f"{(job['result'] or {}).get('sentence', '')}): {found} of {len(wrong)} wrong ones among the first "
            f"{len(suspects)} suspects; lost: {lost}, listed twice: {len(after) - len(set(after))}."
        )
    sys.exit(bool(lost or len(after) != len(by_id) or job["state"] != "done"))


if __name__ == "__main__":
    main()
