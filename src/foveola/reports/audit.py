"""The HTML page of an audit, with the images of its findings."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from foveola.documents import Audit, ImagePlace, LabelSuspect
from foveola.images import ImageSet
from foveola.inputs.resize import resize
from foveola.reports import audit_text, html, pixels

# Bytes of images in a page, whatever the size of each
MAX_IMAGE_BYTES = 3_000_000
MAX_IMAGES = 600
# Shares of the images: suspects, duplicates, outliers
SHARES = (0.4, 0.3, 0.3)
MAX_OF_A_GROUP = 8

MEANING = {
    "placeholder": "Pictures that seem to stand for a missing image: drawn, unlike most others; or copied into several "
    "classes, or into one that they do not fit.",
}


def audit_page(document: Audit, splits: Mapping[str, ImageSet]) -> str:
    """The page as self-contained HTML.

    Parameters
    ----------
    document : what `foveola.audit` returns
    splits : the audited images, uint8 N×H×W×C, by split
    """
    album = _Album(splits)
    suspects, duplicates, outliers = (int(share * album.room) for share in SHARES)
    kinds = {kind: list(rows) for kind, rows in groupby(document.oddities, key=lambda row: row.kind)}
    ranked = _shown_suspects(document)
    return html.render(
        "audit.html",
        document=document,
        text=audit_text,
        split_sentence=audit_text.random_split_sentence(document),
        meaning=MEANING,
        suspects=[album.show(row) for row in ranked[:suspects]],
        suspect_count=len(ranked),
        groups=_groups(document, album, duplicates),
        outliers={
            kind: {"count": len(rows), "rows": [album.show(row) for row in rows[: outliers // len(kinds)]]}
            for kind, rows in kinds.items()
        },
        conflicts=sum(group.conflicting for group in document.duplicate_groups),
        leaks=sum(group.across_splits for group in document.duplicate_groups),
        balance=_balance(document.class_balance),
    )


def _shown_suspects(document: Audit) -> list[LabelSuspect]:
    """The likely errors where their number can be relied on, else all suspects; none if their order says nothing."""
    if document.label_certainty == "no better than guessing":
        return []
    countable = document.label_certainty == "likely errors"
    return document.label_suspects[: document.likely_label_errors if countable else None]


class _Album:
    """Thumbnails, and how many of them a page has room for."""

    def __init__(self, splits: Mapping[str, ImageSet]) -> None:
        self.splits = splits
        height, width, channels = next(iter(splits.values())).image_shape
        shrink = min(pixels.MAX_SIDE / max(height, width), 1)
        self.size = max(round(height * shrink), 1), max(round(width * shrink), 1)
        # a PNG is hardly larger than its pixels; base64 adds a third
        self.room = min(MAX_IMAGE_BYTES // (int(1.4 * self.size[0] * self.size[1] * channels) + 200), MAX_IMAGES)

    def show(self, row: ImagePlace) -> dict[str, Any]:
        """The row with a thumbnail of its image, and the last parts of its path."""
        image = self.splits[row.split].images[row.index]
        shown = row.model_dump() | {"source": html.image_uri(resize(image, *self.size))}
        if shown.get("path"):
            shown["path"] = "/".join(Path(shown["path"]).parts[-2:])
        return shown


def _groups(document: Audit, album: _Album, room: int) -> list[dict[str, Any]]:
    """The first groups of duplicates, as many as there is room for."""
    shown: list[dict[str, Any]] = []
    for members, info in zip(document.duplicates, document.duplicate_groups, strict=True):
        first = list(zip(members, info.labels, strict=True))[:MAX_OF_A_GROUP]
        room -= len(first)
        if room < 0:
            break
        rows = [album.show(place) | {"label": label} for place, label in first]
        shown.append({**info.model_dump(), "rows": rows, "more": len(members) - len(first)})
    return shown


def _balance(counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Count and fraction of each class in each split."""
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
