"""Groups of images that show the same object: read from file names, and recognised where they look like series."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from foveola.errors import DataError
from foveola.images import Dataset
from foveola.tasks import label_numbers

_FOLDER = r"^([^/]+)/"
_EXAMPLE = r"Example: --groups '(.+)_\d+' groups car7_001.png, car7_002.png, … as car7."

MIN_SERIES_SHARE = 0.8  # of the images, in series of two or more
MAX_MEAN_SIZE = 100  # of series without a number in their name, or in unknown classes
_MAX_FORMS = 3

# Object, what stands before its counter (not a timestamp), what stands behind it, extension
_COUNTED = re.compile(r".*[^\W_](?P<before>[-_. ]+\(?[^\W\d_]*[-_. ]?|(?<=\d)[^\W\d_]+)\d{1,8}(?P<after>\D*)\.\w+")
_DATE = re.compile(r".*(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:[0-2]\d|3[01]))?")
_AUGMENTED = r"(.+)\.rf\."  # Roboflow names augmented copies of an image NAME_jpg.rf.HASH.jpg
_VIEWS = r"(.*\d)[-_. ][A-Za-z]+\."  # 10_left.jpeg, 10_right.jpeg


def compile_groups(groups: str) -> re.Pattern[str]:
    """The pattern of `--groups`; "folder" stands for the first folder below the class.

    Raises
    ------
    DataError
        If it is not a regular expression with one capturing group.
    """
    try:
        pattern = re.compile(_FOLDER if groups == "folder" else groups)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"The pattern of --groups, {groups!r}, is not a regular expression: {error}. {_EXAMPLE}"
        ) from None
    if pattern.groups != 1:
        raise DataError(
            f"The pattern of --groups, {groups!r}, has {pattern.groups} capturing groups; it needs one, around "
            f"the part of a file's name that says what it shows. {_EXAMPLE} Other parentheses are written (?:…)."
        )
    return pattern


def group_name(pattern: re.Pattern[str], name: str, path: str) -> str:
    """What the pattern captures in a file's name, its path from the class folder; `path` names it in messages.

    Raises
    ------
    DataError
        If the pattern does not match, or captures nothing.
    """
    match = pattern.search(name)
    if match is not None and match[1]:
        return match[1]
    if pattern.pattern == _FOLDER:
        raise DataError(
            f"{path} is not in a folder below its class, which would name its group. "
            f"Move it into one, or give --groups a pattern over file names instead of folder."
        )
    captured = "does not match" if match is None else "captures nothing in"
    raise DataError(f"The pattern of --groups, {pattern.pattern!r}, {captured} {name} ({path}). {_EXAMPLE}")


def missing_groups(dataset: Dataset, paths: Mapping[str, Sequence[str]]) -> str | None:
    """The `--groups` pattern for an image folder without groups whose file names look like series; else None.

    Parameters
    ----------
    paths : the files of each split, as `image_paths` gives them; empty for data that is not an image folder
    """
    names = [Path(path).name for path in paths.get("train", [])]
    if dataset.train.groups is not None or len(names) != len(dataset.train):
        return None
    return series_pattern(names, label_numbers(dataset.train.labels).tolist())


def series_pattern(paths: Sequence[str], labels: Sequence[int] | None = None) -> str | None:
    r"""The `groups` pattern for file names that look like series, or None.

    Names look like series if they end in a counter (OBJECT_FRAME.png, video12_0034.jpg, "scan-3 (2).png"), most images
    share what stands before it with others of their class, and most classes have several such series. A name that
    merely counts (img_0001.png), repeats its class (cat.0.jpg), or ends in a date or a hash belongs to no series.

    Parameters
    ----------
    paths : of the images, relative to their class folder
    labels : class of each image; without them, long series are taken for classes (3_0001.png, 3_0002.png, …)

    Returns
    -------
    regular expression for `re.search` that matches every path, with one capturing group: the series

    Examples
    --------
    >>> series_pattern([f"video{video}_{frame:04}.jpg" for video in (12, 15, 20) for frame in range(5)])
    '(.+)_\\d+\\.'
    >>> series_pattern([f"im{number}.png" for number in range(12)])
    """
    classes = [0] * len(paths) if labels is None else list(labels)
    patterns = [_AUGMENTED, *_counter_patterns(paths), *([] if labels is None else [_VIEWS])]
    return next((text for text in patterns if _finds_series(text, paths, classes, labels is not None)), None)


def _counter_patterns(paths: Sequence[str]) -> list[str]:
    """A pattern for each of the most frequent forms of counters."""
    forms = Counter((match["before"], match["after"]) for path in paths if (match := _COUNTED.fullmatch(path)))
    patterns = []
    for (before, after), count in forms.most_common(_MAX_FORMS):
        counter = rf"{_escape(before)}\d+{_escape(after)}"
        patterns.append(rf"(.+){counter}\." if count == len(paths) else rf"^(.+?)(?:{counter})?\.\w+$")
    return patterns


def _finds_series(pattern: str, paths: Sequence[str], classes: Sequence[int], classes_known: bool) -> bool:
    matches = [re.search(pattern, path) for path in paths]
    names = [match[1] for match in matches if match]
    if len(names) < len(paths) or not names:
        return False
    sizes = Counter(zip(classes, names, strict=True))
    by_class: dict[int, set[str]] = defaultdict(set)
    for label, name in sizes:
        by_class[label].add(name)
    in_series = sum(size for size in sizes.values() if size > 1) / len(names)
    several = sum(len(found) > 1 for found in by_class.values()) / len(by_class)
    dated = sum(_DATE.fullmatch(name) is not None for name in names) / len(names)
    numbered = sum(any(map(str.isdigit, name)) for name in names) / len(names)
    short = len(names) <= MAX_MEAN_SIZE * len(sizes)
    if pattern == _AUGMENTED:
        numbered = 1.0
    elif numbered < 0.5 and (not classes_known or min(map(len, by_class.values())) < 3):
        return False  # one word before the counter: img_0001.png, cat.0.jpg
    return (
        len(names) >= 2 * len(sizes)
        and in_series >= MIN_SERIES_SHARE
        and several >= 0.5
        and dated < 0.5
        and (short or (classes_known and numbered >= 0.5))
    )


def _escape(text: str) -> str:
    return re.sub(r"([.()\\])", r"\\\1", text)
