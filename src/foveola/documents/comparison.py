"""A comparison of runs."""

from foveola.display import Displayed
from foveola.documents.document import Document, Part
from foveola.evaluation.comparison import McNemar
from foveola.evaluation.costs import ParametersByImageSize
from foveola.predictions import Estimate
from foveola.text import printable


class DataSummary(Part):
    """Which data set, by content."""

    name: str
    fingerprint: str
    classes: list[str]


class SeedAccuracy(Part):
    """Test accuracy of one training of several that differ in their seed."""

    path: str
    seed: int
    accuracy: float


class ComparedRun(Part):
    """Accuracy and costs of a run. Mean and standard deviation are over seeds, None with a single one."""

    path: str
    name: str
    recipe: str
    accuracy: Estimate
    accuracy_mean: float | None
    accuracy_standard_deviation: float | None
    parameters: int
    multiply_adds: int
    seconds_training: float
    trainings: list[SeedAccuracy]
    latency_ms: float
    images_per_second: float


class Significance(Part):
    """A test by name, its p-value, and that value corrected for the number of pairs (Holm 1979)."""

    name: str
    p: float
    p_corrected: float


class Disagreement(Part):
    """A test image that two runs classify differently."""

    index: int
    true: str
    first: str
    second: str


class ComparedPair(Part):
    """Two runs on the same test images; differences are the first's metric less the second's.

    `real` says whether test and interval rule out chance, for what the comparison's `scope` names.
    """

    first: str
    second: str
    accuracy_difference: Estimate
    mcnemar: McNemar
    test: Significance
    real: bool
    differences: dict[str, Estimate]
    disagreements: int
    disagreeing_images: list[Disagreement]
    verdict: str


class Comparison(Displayed, Document):
    """What `foveola compare --json` prints. `scope` says what the verdicts hold for: the trained models or recipes."""

    data: DataSummary
    split: str
    n: int
    seeds: int
    scope: str = ""
    measured_on: str
    runs: list[ComparedRun]
    pairs: list[ComparedPair]
    scaling: list[ParametersByImageSize]

    def __repr__(self) -> str:
        several = len(self.pairs) > 1
        verdicts = [(f"{pair.first} and {pair.second}: " if several else "") + pair.verdict for pair in self.pairs]
        images = f"{self.n:,} {self.split} images of {self.data.name}"
        return printable(f"Comparison({len(self.runs)} runs on {images}: {'; '.join(verdicts)})")
