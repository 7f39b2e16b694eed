"""Studies that processes share: matched, drawn repeatably, trials of dead processes tried again."""

import os
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("optuna")

from optuna.trial import TrialState

from foveola.errors import Failure, UserError
from foveola.training.search_space import parse_space
from foveola.workflow import study as studies
from foveola.workflow.study import ask, enqueue_start, file_url, give_up, masked, open_study, retry_dead

SPACE = parse_space(
    {
        "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "augment": {"shift": {"low": 0, "high": 3}, "zoom": {"low": 0.0, "high": 0.2, "step": 0.05}},
        "optimizer": {"choices": ["adam", "sgd"]},
    }
)
START = {"learning_rate": 0.01, "augment.shift": 0, "augment.zoom": 0.0, "optimizer": "adam"}


@pytest.fixture
def url(tmp_path):
    return file_url(tmp_path / "study.db")


def opened(url, name="toy", identity=None, seed=0):
    return open_study(url, name, identity or {"data": "f" * 64}, direction="minimize", seed=seed)


def draw(study, count):
    """Values of trials that are finished at once, the worse the larger the learning rate."""
    drawn = []
    for _ in range(count):
        trial = ask(study, SPACE)
        study.tell(trial, trial.params["learning_rate"])
        drawn.append(trial.params)
    return drawn


def test_the_start_is_the_first_trial_and_draws_are_repeatable_also_after_reopening(tmp_path, url):
    study = opened(url)
    enqueue_start(study, START)
    enqueue_start(study, START)
    first = draw(study, 10)
    assert first[0] == START
    assert all(SPACE.dimensions[key].contains(value) for values in first for key, value in values.items())
    assert len({str(values) for values in first}) == 10
    other = opened(file_url(tmp_path / "other.db"))
    enqueue_start(other, START)
    again = draw(other, 5)
    other = opened(file_url(tmp_path / "other.db"))
    enqueue_start(other, START)
    assert again + draw(other, 5) == first


def test_another_study_of_that_name_is_refused_by_what_differs(url):
    opened(url, identity={"data": "a", "folds": 5})
    assert opened(url, identity={"data": "a", "folds": 5}).user_attrs["foveola"] == {"data": "a", "folds": 5}
    with pytest.raises(UserError, match="differs in: folds"):
        opened(url, identity={"data": "a", "folds": 3})
    opened(url, name="other", identity={"data": "b", "folds": 3})


def test_a_study_of_somebody_else_is_refused(url):
    import optuna

    storage = optuna.storages.RDBStorage(url)
    theirs = optuna.create_study(storage=storage, study_name="toy")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    storage.engine.dispose()
    with pytest.raises(UserError, match="not made by Foveola"):
        opened(url)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nonsense", "cannot be opened"),
        ("oracle+none://user:secret@host/db", "cannot be opened"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_message_without_its_password(bad, message, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match=message) as raised:
        opened(bad)
    assert "secret" not in str(raised.value)


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(UserError, match="file is not a database"):
        opened(file_url(tmp_path / "study.db"))


def test_passwords_are_masked():
    assert masked("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


ASK_AND_DIE = """
import os, sys
from foveola.training.search_space import parse_space
from foveola.workflow.study import ask, enqueue_start, open_study
from test_study import SPACE, START
study = open_study(sys.argv[1], "toy", {"data": "f" * 64}, direction="minimize", seed=0)
enqueue_start(study, START)
ask(study, SPACE)
os._exit(9)
"""


def test_the_trial_of_a_dead_process_is_tried_again_but_not_for_ever(url):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)])}  # noqa: PTH120
    numbers = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", ASK_AND_DIE, url], env=environment, capture_output=True, text=True)
        assert done.returncode == 9, done.stderr
        study = opened(url)
        numbers += retry_dead(study)
    assert numbers == [0, 1, 2]
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    assert [trial.params for trial in study.trials] == [START] * 3
    assert all(trial.user_attrs["start"] for trial in study.trials)


def test_a_living_process_keeps_its_trial_and_one_elsewhere_until_it_is_silent(url, monkeypatch):
    study = opened(url)
    trial = ask(study, SPACE)
    assert retry_dead(study) == []
    trial.set_user_attr("process", {"machine": "elsewhere", "pid": 1, "start": "1"})
    assert retry_dead(study) == []
    monkeypatch.setattr(studies, "DEAD_AFTER", -1)
    assert retry_dead(study) == [0]
    assert retry_dead(study) == []
    assert ask(study, SPACE).params == trial.params


def test_a_trial_given_up_is_the_next_one_if_asked_for(url):
    study = opened(url)
    enqueue_start(study, START)
    trial = ask(study, SPACE)
    give_up(study, trial, again=True)
    give_up(study, trial, again=True)  # finished already: nothing more
    again = ask(study, SPACE)
    assert (again.params, again.user_attrs["start"], again.number) == (START, True, 1)
    give_up(study, again, again=False)
    assert [one.state for one in study.trials] == [TrialState.FAIL] * 2


def test_the_database_holds_no_bytes_that_could_be_a_pickle(tmp_path, url):
    study = opened(url)
    enqueue_start(study, START)
    draw(study, 3)
    with sqlite3.connect(tmp_path / "study.db") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        cells = [cell for name in tables for row in database.execute(f"select * from {name}") for cell in row]
    database.close()
    assert not [cell for cell in cells if isinstance(cell, bytes)]


def test_a_database_that_is_gone_meanwhile_is_one_message(tmp_path, url):
    study = opened(url)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("drop table trials")
    database.close()
    with pytest.raises(Failure, match="cannot be read or written any more: no such table"), studies.reachable(url):
        ask(study, SPACE)
