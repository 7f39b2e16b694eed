"""The page of an audit: pictures of what was found."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from foveola.decoding import resize
from foveola.images import ImageSet
from foveola.report import html

# A page holds so many bytes of pictures at most, whatever their size
PICTURE_BYTES = 3_000_000
LARGEST_SIDE = 64
MOST_PICTURES = 600
# Shares of the pictures: suspects, duplicates, odd images
SHARES = (0.4, 0.3, 0.3)
MOST_OF_A_GROUP = 8


def page(document: Mapping[str, Any], splits: Mapping[str, ImageSet]) -> str:
    """The document of an audit as one self-contained HTML page.

    Parameters
    ----------
    document : what `foveola.workflow.audit.audit` gives
    splits : the images that it speaks of, uint8 N×H×W×C, by split
    """
    album = _Album(splits)
    suspects, duplicates, oddities = (int(share * album.room) for share in SHARES)
    kinds = {kind: list(rows) for kind, rows in groupby(document["oddities"], key=lambda row: str(row["kind"]))}
    likely = document["likely_label_errors"]
    return html.render(
        "audit.html",
        document=document,
        suspects=[album.show(row) for row in document["label_suspects"][:likely][:suspects]],
        groups=_groups(document, album, duplicates),
        oddities={
            kind: {"count": len(rows), "rows": [album.show(row) for row in rows[: oddities // len(kinds)]]}
            for kind, rows in kinds.items()
        },
        conflicts=sum(group["conflicting"] for group in document["duplicate_groups"]),
        leaks=sum(group["across_splits"] for group in document["duplicate_groups"]),
        balance=_balance(document["class_balance"]),
    )


class _Album:
    """Small pictures of images, and how many of them a page has room for."""

    def __init__(self, splits: Mapping[str, ImageSet]) -> None:
        self.splits = splits
        height, width, channels = next(iter(splits.values())).image_shape
        shrink = min(LARGEST_SIDE / max(height, width), 1)
        self.size = max(round(height * shrink), 1), max(round(width * shrink), 1)
        # a PNG is hardly larger than its pixels; base64 adds a third
        self.room = min(PICTURE_BYTES // (int(1.4 * self.size[0] * self.size[1] * channels) + 200), MOST_PICTURES)

    def show(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with a picture of its image."""
        image = self.splits[row["split"]].images[row["index"]]
        return {**row, "picture": html.picture(resize(image, *self.size))}


def _groups(document: Mapping[str, Any], album: _Album, room: int) -> list[dict[str, Any]]:
    """The first groups of duplicates, as many as there is room for."""
    shown: list[dict[str, Any]] = []
    for members, about in zip(document["duplicates"], document["duplicate_groups"], strict=True):
        first = list(zip(members, about["labels"], strict=True))[:MOST_OF_A_GROUP]
        room -= len(first)
        if room < 0:
            break
        rows = [album.show(place | {"label": label}) for place, label in first]
        shown.append({**about, "rows": rows, "more": len(members) - len(first)})
    return shown


def _balance(counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """A row a class: count and share in each split."""
    totals = {split: sum(classes.values()) for split, classes in counts.items()}
    names: Sequence[str] = list(next(iter(counts.values())))
    largest = {split: max(classes.values()) for split, classes in counts.items()}
    return [
        {
            "name": name,
            "splits": [
                {
                    "count": classes[name],
                    "share": classes[name] / totals[split],
                    "bar": float(np.round(100 * classes[name] / largest[split], 1)),
                }
                for split, classes in counts.items()
            ],
        }
        for name in names
    ]
