"""The sentences of an audit, for terminal and page."""

import shlex

from foveola.documents import Audit


def accuracy_sentence(document: Audit) -> str:
    """What the cross-fitted accuracy is."""
    sentences = [
        f"Networks that were trained without an image{_kept(document)} give it its label in this share of all images."
    ]
    if document.guessing is not None:
        sentences.append(f"Naming the most frequent class gives {100 * document.guessing:.1f} %.")
    if document.near_copies_apart:
        sentences.append(
            "Near copies connect most images of a class, and were not kept together: the share may be too high."
        )
    return " ".join(sentences)


def suspects_title(document: Audit) -> str:
    """What label suspects may be called."""
    if document.label_certainty == "hard or mislabelled":
        return "Hard or mislabelled"
    countable = document.label_certainty == "likely errors" and document.likely_label_errors
    return "Likely label errors" if countable else "Label suspects"


def suspects_sentence(document: Audit) -> str:
    """What can be said of the label suspects: their number where it can be relied on, otherwise only their rank."""
    suspects, likely = len(document.label_suspects), document.likely_label_errors
    if document.label_certainty == "no better than guessing":
        return (
            "No better than guessing: networks do not learn these classes from these images, so they cannot tell wrong "
            "labels, and the order of the suspects says nothing. Train longer (--epochs) or with another --recipe."
        )
    if document.label_certainty == "hard or mislabelled":
        return (
            f"The networks contradict {suspects:,} labels. They often err on these images, so most of the suspects are "
            f"hard images with the right label. How many labels are wrong cannot be said; the ranking shows where to "
            f"look first."
        )
    if not suspects:
        return "The networks contradict no label."
    contradicted = f"The networks contradict {suspects:,} label{_s(suspects)}."
    if not likely:
        return f"{contradicted} Confident learning takes none of them for wrong: more likely, the images are hard."
    wrong = f"about {likely:,} {'is' if likely == 1 else 'are'} wrong"
    return (
        f"{contradicted} By confident learning, {wrong}; the others are more likely hard images. Look before you "
        f"change a label."
    )


def random_split_sentence(document: Audit) -> str | None:
    """What a random split would do to the duplicates; None where that says nothing."""
    split = document.random_split
    if split is None:
        return None
    ratio = f"{1 - split.held_out:.0%}/{split.held_out:.0%}".replace("%", "")
    return (
        f"A random {ratio} split would put {_about(split.groups, 'group')} of duplicates on both sides, so that "
        f"{_about(split.images, 'test image')} would be learnt too (expected numbers). foveola train keeps copies "
        f"on one side; near copies, too, where it finds them within seconds."
    )


def series_sentence(document: Audit) -> str | None:
    """How to group images whose names look like series; None if they do not."""
    if document.series is None:
        return None
    return (
        f"File names look like series (frames of a video, views of an object). Networks that have seen one frame know "
        f"the next, so suspects are missed and the accuracy is too high. If so, keep each series together: "
        f"--groups {shlex.quote(document.series)}"
    )


def group_leak_sentence(document: Audit) -> str | None:
    """How many images outside training belong to a group in training; None without any."""
    leaked = document.leaked_by_group
    if not leaked:
        return None
    belong = "image of the other splits belongs" if leaked == 1 else "images of the other splits belong"
    return f"{leaked:,} {belong} to groups that are also in training: accuracy on them is too high for new groups."


def unjudged_sentence(document: Audit) -> str | None:
    """Which labels were not judged; None if all were."""
    if not document.unjudged:
        return None
    return (
        f"The label{_s(document.unjudged)} of {document.unjudged:,} image{_s(document.unjudged)} cannot be judged: "
        f"without it and its copies, its class has no training images."
    )


def _kept(document: Audit) -> str:
    """What else the networks have not seen."""
    copies = "its exact copies" if document.near_copies_apart else "its copies"
    return f", {copies} and its group" if document.data.groups is not None else f" and {copies}"


def _about(number: float, noun: str) -> str:
    """Such as "about 12 groups"; a small number with a decimal."""
    text = f"{number:.1f}" if number < 10 else f"{number:,.0f}"
    return f"about {text} {noun}{'' if text == '1.0' else 's'}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
