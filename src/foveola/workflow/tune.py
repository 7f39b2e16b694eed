"""Tune: search for a better recipe on validation images, then train the best one once and measure it."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from foveola.datasets import Source, as_source
from foveola.datasets.columns import as_columns
from foveola.documents import Objective, TunedTrial, Tuning
from foveola.errors import Failure, OutputError, UserError, require
from foveola.files import check_writable, write_atomically, writing
from foveola.images import Dataset, check_one_class
from foveola.models.metadata import Columns
from foveola.progress import console
from foveola.recipe import Recipe, load_recipe, merge_settings
from foveola.runs import STATUS_FILE, Run
from foveola.workflow.open import Device, choose_device, choose_threads
from foveola.workflow.prepare_run import labels_and_recipe, load_data
from foveola.workflow.train import train

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console

    from foveola.training.search_space import SearchSpace
    from foveola.workflow.trials import Judge, Search

TRIALS = 30
BEST, TABLE, PAGE, DOCUMENT, DATABASE, RUN = (
    "best.toml", "trials.csv", "report.html", "tuning.json", "study.db", "run",
)  # fmt: skip
COLUMNS = ("number", "state", "value", "seconds", "start", "reason")
MIN_TRIALS_FOR_IMPORTANCES = 6


def tune(
    data: object,
    y: object = None,
    recipe: str | Path | Recipe | None = None,
    *,
    space: "str | Path | Mapping[str, Any] | None" = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    trials: int | None = None,
    budget: float | None = None,
    objective: Objective = "log_loss",
    folds: int | None = None,
    repeats: int = 1,
    study: str | None = None,
    study_name: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    skip_bad: int = 0,
    groups: "str | ArrayLike | None" = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Tuning:
    """Search for a better recipe on validation images; train the best one once, and measure it on the test split.

    The same call continues an interrupted study, and several processes may work on one study at once.

    Parameters
    ----------
    data, y : as in `foveola.train`: catalog name, path, or objects, such as images with their labels
    recipe : the recipe to start from; it is the first trial, so the result is never worse than it on the validation
        images; by default "fast"
    space : a TOML file, or nested tables, with a range or choices by recipe key; by default learning rates, weight
        decay, label smoothing and augmentation around the recipe's values
    out : the folder for the study, tables, report and run; by default tunings/<data>-<recipe>
    overrides, settings : values of the recipe to start from, by key, as in `foveola.train`
    trials : trials of the study in all; by default 30, with a budget no limit
    budget : seconds for everything in this call, the last training and its report included
    objective : "log_loss", after temperature scaling, which tells recipes apart with fewer images; or "accuracy"
    folds, repeats : score recipes by repeated stratified k-fold. By default they are scored on the data's validation
        images, or on a fifth of the training images; by five folds if that is fewer than 1,000 images
    study : URL of the database, as SQLAlchemy takes it; by default the file study.db in `out`
    study_name : name of the study in the database; by default <data>-<recipe>
    seed : of folds, search and trainings; the search is repeatable with one process
    device : "auto" uses a GPU if there is one
    threads : number of threads, from now on in this process; by default one per core
    skip_bad, groups, columns : as in `foveola.train`
    class_names, channels_first, name : as for `foveola.load`, if data is given as objects
    verbose : report progress on standard error

    Returns
    -------
    The content of tuning.json.

    Raises
    ------
    UserError
        If data, recipe, space, study or folder cannot be used.
    Failure
        If no trial came to an end.

    Examples
    --------
    >>> space = {"learning_rate": {"low": 0.0001, "high": 0.01, "log": True}}
    >>> tuning = foveola.tune("digits", "mlp", space=space, overrides={"epochs": 1}, trials=2, verbose=False)
    >>> tuning.best.value <= tuning.start.value, tuning.evaluation.n
    (True, 359)
    """
    started = time.perf_counter()
    y, recipe = labels_and_recipe(y, recipe)
    overrides = merge_settings(overrides, settings, tune)
    source = as_source(data, y, class_names=class_names, channels_first=channels_first, name=name)
    require("torch", "train")
    require("optuna", "tune")
    from foveola.training.stopping import StopSignals
    from foveola.workflow import study as studies
    from foveola.workflow.trials import DIRECTIONS, Judge, Search

    start, searched = _settle(recipe or "fast", overrides, space)
    _check_numbers(trials, budget, folds, repeats, objective)
    screen, chosen = console(verbose), choose_device(device)
    choose_threads(threads)
    own = as_columns(columns)
    dataset = load_data(source, start, skip_bad, groups, screen, own)
    dataset.check_trainable()
    check_one_class(dataset, "Recipes are tuned")
    if start.resize == "auto":
        start = start.model_copy(update={"resize": dataset.resize})
    judge = Judge.of(dataset, start, folds, repeats, objective, seed, chosen)
    title = f"{dataset.name}-{start.name}"
    folder = Path(out) if out is not None else Path("tunings") / title
    _make_folder(folder)
    shared = studies.open_study(
        study or studies.file_url(folder / DATABASE),
        study_name or title,
        _identity(dataset, start, searched, judge),
        direction=DIRECTIONS[objective],
        seed=seed,
    )
    screen.print(f"{judge.description}; writing to {folder}", soft_wrap=True)
    deadline = math.inf if budget is None else started + budget
    limit = trials or (TRIALS if budget is None else None)
    url = study or studies.file_url(folder / DATABASE)
    with studies.reachable(url), StopSignals() as signals, signals.deferred():
        search = Search(shared, start, searched, judge, limit, deadline, signals, screen)
        search.run()
        document = _document(search, dataset, url, folder, started)
        best = _best_recipe(search, document)
        _write(folder, document, best)
        signals.end()
    if search.others_running():
        screen.print("Another process is still tuning; the last one to end trains the best recipe.", soft_wrap=True)
        return document
    run = _train_best(source, best, folder / RUN, document.final_seed, device, threads, skip_bad, groups, own, screen)
    document.run, document.seconds = str(run.path), time.perf_counter() - started
    document.evaluation = run.evaluation if run.status.data.test else None
    _write(folder, document, best)
    return document


def starting_space(
    recipe: str | Path | Recipe = "fast",
    overrides: Mapping[str, Any] | None = None,
    space: "str | Path | Mapping[str, Any] | None" = None,
) -> "SearchSpace":
    """The search space of a tuning, checked against the recipe that it starts from."""
    return _settle(recipe, overrides, space)[1]


def _settle(
    recipe: str | Path | Recipe, overrides: Mapping[str, Any] | None, space: "str | Path | Mapping[str, Any] | None"
) -> "tuple[Recipe, SearchSpace]":
    from foveola.training.search_space import default_space, parse_space, read_space

    start = load_recipe(recipe, overrides)
    if space is None:
        return start, default_space(start)
    is_file = isinstance(space, str | Path)
    searched = read_space(Path(space)) if is_file else parse_space(space)  # type: ignore[arg-type]
    searched.check(start, str(space) if is_file else "search space")
    searched.start(start)
    return start, searched


def _check_numbers(trials: int | None, budget: float | None, folds: int | None, repeats: int, objective: str) -> None:
    if trials is not None and trials < 1:
        raise UserError(f"trials is {trials}; there must be at least 1.")
    if budget is not None and not budget > 0:
        raise UserError(f"budget is {budget}; it must be more than 0 seconds.")
    if folds is not None and folds < 2:
        raise UserError(f"folds is {folds}; there must be at least 2, so that networks learn from the others.")
    if repeats < 1 or (repeats > 1 and folds is None):
        raise UserError(f"repeats is {repeats}; it is how often folds are drawn, at least 1, and needs folds.")
    if objective not in get_args(Objective):
        raise UserError(f"objective is {objective!r}; it is log_loss or accuracy.")


def _make_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a tuning."""
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in (DATABASE, DOCUMENT)):
        raise OutputError(f"{folder} holds files, but no tuning; they are left alone. Choose another --out.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _identity(dataset: Dataset, start: Recipe, space: "SearchSpace", judge: "Judge") -> dict[str, Any]:
    """What processes must have in common to share a study, in the words of messages."""
    return {
        "data": dataset.fingerprint,
        "recipe": start.model_dump(mode="json", exclude_none=True),
        "search space": space.to_document(),
        "objective": judge.objective,
        "folds": judge.description,
        "seed": judge.seed,
    }


def _best_recipe(search: "Search", document: Tuning) -> Recipe:
    """The best trial's recipe, under a name of its own."""
    recipe = search.space.apply(search.start, document.best.values)
    name = recipe.name if recipe.name.endswith("-tuned") else f"{recipe.name}-tuned"
    return recipe.model_copy(update={"name": name, "description": f"{recipe.name}, tuned on {document.data}"})


def _document(search: "Search", dataset: Dataset, url: str, folder: Path, started: float) -> Tuning:
    """What is known of the study.

    Raises
    ------
    Failure
        If no trial came to an end.
    """
    from foveola.workflow.study import masked

    judge, best = search.judge, search.best()
    rows = {trial.number: _row(trial) for trial in search.study.get_trials(deepcopy=False)}
    if best is None:
        reasons = sorted({row.reason for row in rows.values() if row.reason})
        raise Failure(
            f"No trial came to an end: {' '.join(reasons) or 'there was no time.'} Start from another recipe with "
            f"--recipe, narrow the search space, or give more time."
        )
    return Tuning(
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        recipe=search.start.name,
        space=search.space.to_document(),
        objective=judge.objective,
        judged_by=judge.description,
        folds=judge.fold_count,
        repeats=judge.repeats,
        seed=judge.seed,
        final_seed=judge.seed + 1,
        study=masked(url),
        study_name=search.study.study_name,
        trials=list(rows.values()),
        start=next((row for row in rows.values() if row.start and row.state == "complete"), None),
        best=rows[best.number],
        importances=_importances(search.study),
        files=[str(folder / file) for file in (BEST, TABLE, PAGE, DOCUMENT)],
        seconds=time.perf_counter() - started,
    )


def _row(trial: "FrozenTrial") -> TunedTrial:
    attributes = trial.user_attrs
    return TunedTrial(
        number=trial.number,
        state={"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),  # type: ignore[arg-type]
        value=trial.value if trial.value is not None and math.isfinite(trial.value) else None,
        scores=attributes.get("scores", []),
        seconds=attributes.get("seconds"),
        start=attributes.get("start", False),
        reason=attributes.get("reason"),
        values=trial.params,
    )


def _importances(study: "Study") -> dict[str, float]:
    """The share of each key in the variance of the complete trials (functional ANOVA, Hutter et al., 2014)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(values) < MIN_TRIALS_FOR_IMPORTANCES or len(set(values)) < 2:
        return {}
    try:
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (RuntimeError, ValueError):  # as if nothing varied
        return {}
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def _write(folder: Path, document: Tuning, best: Recipe) -> None:
    from foveola.reports.tuning import tuning_page

    contents = {
        BEST: best.to_toml(),
        TABLE: _table(document),
        PAGE: tuning_page(document),
        DOCUMENT: document.to_json() + "\n",
    }
    with writing(folder):
        for name, content in contents.items():
            write_atomically(folder / name, content)


def _table(document: Tuning) -> str:
    """The trials as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*COLUMNS, *document.best.values], lineterminator="\n")
    table.writeheader()
    for trial in document.trials:
        table.writerow(trial.model_dump(include=set(COLUMNS)) | trial.values)
    return text.getvalue()


def _train_best(
    data: Source, best: Recipe, path: Path, seed: int, device: Device, threads: int | None, skip_bad: int,
    groups: "str | ArrayLike | None", columns: Columns, screen: "Console",
) -> Run:  # fmt: skip
    """Train the best recipe on its own; a finished run of the same recipe is kept."""
    if (path / STATUS_FILE).is_file():
        run = Run.open(path)
        if run.status.status == "done" and (run.status.recipe, run.status.seed) == (best, seed):
            screen.print(f"{path} holds the run of this recipe already", soft_wrap=True)
            return run
    text = f"training the best recipe with seed {seed}, which no trial had, and measuring it on the test split"
    screen.print(text, soft_wrap=True)
    return train(
        data, recipe=best, out=path, seed=seed, device=device, threads=threads, force=True, skip_bad=skip_bad,
        groups=groups, columns=columns, verbose=not screen.quiet,
    )  # fmt: skip
