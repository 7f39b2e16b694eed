"""What an audit has found in a project: images that are probably in the wrong class, and copies, by their ids."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveola.documents import Audit
from foveola.teaching.listing import Picture
from foveola.teaching.project import Project


def read_findings(folder: Path, project: Project) -> dict[str, Any]:
    """The findings of an audit: a sentence, suspects with the probability that their class is wrong, groups of copies.

    Parameters
    ----------
    folder : with the documents that the audit has written
    """
    document = Audit.from_json((folder / "audit.json").read_bytes(), str(folder / "audit.json"))
    certain = document.label_certainty == "likely errors"
    suspects = document.label_suspects[: document.likely_label_errors if certain else None]
    if document.label_certainty == "no better than guessing":
        suspects = []
    found = []
    for suspect in suspects:
        picture = None if suspect.path is None else project.picture_at(suspect.path)
        if picture is not None:
            found.append(
                {
                    "id": picture.id,
                    "class": suspect.given,
                    "suggested": suspect.suggested,
                    "probability": 1 - suspect.score,
                }
            )
    copies = _copies(folder / "findings.csv", project)
    return {"sentence": _about_suspects(document, len(found)), "suspects": found, "copies": copies}


def remaining(findings: dict[str, Any], project: Project) -> dict[str, Any]:
    """Without images that were moved or deleted since, and suspects that somebody has found right."""
    suspects = [
        one for one in findings["suspects"] if project.picture(one["id"]) is not None and not project.is_kept(one["id"])
    ]
    groups = [[one for one in group["ids"] if project.picture(one) is not None] for group in findings["copies"]]
    return findings | {"suspects": suspects, "copies": [{"ids": group} for group in groups if len(group) > 1]}


def _copies(table: Path, project: Project) -> list[dict[str, list[str]]]:
    """Groups of copies by id, without those that are frames of a single recording."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["finding"].endswith(" duplicate"):
                picture = project.picture_at(row["path"])
                if picture is not None:
                    groups[row["group"]].append(picture)
    return [{"ids": [picture.id for picture in group]} for group in groups.values() if not _is_one_recording(group)]


def _is_one_recording(group: Sequence[Picture]) -> bool:
    first = group[0]
    return first.recording is not None and all(
        (one.recording, one.class_name) == (first.recording, first.class_name) for one in group
    )


def _about_suspects(document: Audit, count: int) -> str:
    """What the suspects are."""
    if document.label_certainty == "no better than guessing":
        return "The classes cannot be told apart well enough to doubt any image. Add images, and check again."
    if not count:
        return "No image seems to be in the wrong class."
    images = "1 image" if count == 1 else f"{count:,} images"
    if document.label_certainty == "hard or mislabelled":
        return f"Look at {images}: each is in the wrong class, or hard to recognise."
    return f"{images} {'is' if count == 1 else 'are'} probably in the wrong class."
