"""Defaults of options from foveola.toml and pyproject.toml: which file, what it may set, and what wins."""

import json

import pytest

import foveola


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository of its own, with the working folder inside it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path / "experiments")
    return tmp_path


def in_force(foveola_command):
    document = json.loads(foveola_command("info", "--json").out)
    return document["defaults_file"], document["defaults"]


def test_without_a_file_nothing_is_set(foveola_command):
    assert in_force(foveola_command) == (None, {})


def test_the_nearest_file_counts_up_to_the_repository(foveola_command, repository):
    (repository.parent / "foveola.toml").write_text("threads = 3")  # outside
    try:
        assert in_force(foveola_command) == (None, {})
    finally:
        (repository.parent / "foveola.toml").unlink()
    (repository / "pyproject.toml").write_text('[project]\nname = "digits"\n[tool.foveola.train]\nseed = 7\n')
    assert in_force(foveola_command) == (str(repository / "pyproject.toml"), {"train": {"seed": 7}})
    (repository / "foveola.toml").write_text("threads = 2")
    assert in_force(foveola_command) == (str(repository / "foveola.toml"), {"threads": 2})
    (repository / "experiments" / "pyproject.toml").write_text('[project]\nname = "another"')  # nothing for Foveola
    assert in_force(foveola_command)[0] == str(repository / "foveola.toml")


def test_outside_a_repository_the_working_folder_counts(foveola_command, repository):
    (repository / ".git").rmdir()
    (repository / "foveola.toml").write_text("threads = 2")
    assert in_force(foveola_command) == (None, {})
    (repository / "experiments" / "foveola.toml").write_text("threads = 3")
    assert in_force(foveola_command)[1] == {"threads": 3}


def test_info_lists_them(foveola_command, repository):
    (repository / "foveola.toml").write_text('device = "cpu"\n[train]\nseed = 7')
    rows = {" ".join(line.split()) for line in foveola_command("info").out.splitlines()}
    assert rows >= {"default device cpu", "default train --seed 7"}
    assert any(row.startswith("defaults file") for row in rows)


def test_they_reach_the_command_and_the_command_line_wins(foveola_command, repository, toy_npz, tiny):
    (repository / "recipes").mkdir()
    (repository / "recipes" / "tiny.toml").write_text(tiny.read_text())
    (repository / "foveola.toml").write_text(
        'threads = 1\n[train]\nrecipe = "recipes/tiny.toml"\nseed = 7\nset = ["validation=0.3"]\nreport = false\n'
    )
    code, out, err = foveola_command("train", toy_npz, "--out", "run", "--json")
    document = json.loads(out)
    assert (code, document["seed"], document["recipe"]["validation"]) == (0, 7, 0.3)
    assert not (repository / "experiments" / "run" / "report.html").exists()
    [said] = [line for line in err.splitlines() if line.startswith("Defaults from ")]
    assert said.startswith(f"Defaults from {repository / 'foveola.toml'}: recipe = ")
    assert said.endswith("report = false, seed = 7, threads = 1")
    code, out, err = foveola_command("train", toy_npz, "--out", "other", "--seed", 8, "--json", "--quiet")
    assert json.loads(out)["seed"] == 8
    assert err == ""


def test_of_two_options_that_exclude_each_other_the_given_one_counts(foveola_command, repository, toy_npz, tiny):
    (repository / "foveola.toml").write_text('[train]\nbudget = "60s"')
    document = json.loads(
        foveola_command("train", toy_npz, "-r", tiny, "--epochs", 1, "--out", "run", "--no-report", "--json").out
    )
    assert document["epochs"] == document["recipe"]["epochs"] == 1


def test_a_resumed_training_does_not_take_them(foveola_command, repository, toy_npz, tiny):
    run = foveola.train(toy_npz, tiny, out="run", report=False, verbose=False)
    (repository / "foveola.toml").write_text('threads = 1\n[train]\nseed = 7\nbudget = "60s"')
    code, out, _ = foveola_command("train", "--resume", run.path, "--json")
    assert (code, json.loads(out)["seed"]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 3", "Unknown key 'seeds'. Did you mean"),
        ("[trian]\nseed = 3", "Unknown key 'trian'. Did you mean 'train'?"),
        ("[train]\nsed = 3", "[train] Unknown key 'sed'. Did you mean 'seed'?"),
        ("train = 3", "train is 3, but it is a command. Write [train], and its options below."),
        ('[train]\nseed = "7"', "[train] seed is '7'; it should be a whole number."),
        ("[train]\nseed = true", "[train] seed is True; it should be a whole number."),
        ("[train]\nreject = true", "[train] reject is True; it should be a number."),
        ("[train]\nrecipe = 3", "[train] recipe is 3; it should be text in quotes"),
        ('[train]\nset = "epochs=3"', "[train] set is 'epochs=3'; it should be a list of texts"),
        ('quiet = "yes"', "quiet is 'yes'; it should be true or false."),
        ("[train", "is not valid TOML"),
        ("x = " + 10_000 * "[", "is not valid TOML"),
        ("#" + 2**20 * "x", "has more than 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused(foveola_command, repository, text, message):
    path = repository / "foveola.toml"
    path.write_text(text)
    code, out, err = foveola_command("recipes")
    assert (code, out) == (2, "")
    assert err.startswith(f"foveola: {path}")
    assert message in err
    assert foveola_command("recipes", "--help").code == foveola_command("help").code == 0


@pytest.mark.parametrize(
    ("table", "line", "why"),
    [
        ("train", 'callback = ["evil:Callback"]', "it names code to run"),
        ("train", 'log = ["wandb"]', "it says where results are sent"),
        ("train", 'weights = "w.safetensors"', "it names a file or folder"),
        ("train", 'init = "run"', "it names a file or folder"),
        ("train", 'teacher = "run"', "it names a file or folder"),
        ("train", 'resume = "run"', "it names a file or folder"),
        ("train", 'out = "run"', "it names a file or folder"),
        ("train", "force = true", "it replaces files"),
        ("tune", 'study = "postgresql://host"', "it names a database"),
        ("report", 'data = "elsewhere"', "it names data to read"),
        ("serve", 'host = "0.0.0.0"', "it says who can reach the server"),
        ("serve", 'allow_host = ["all"]', "it says who can reach the server"),
        ("serve", 'api-key = "secret"', "it is a secret"),
        ("serve", 'collect = "folder"', "it names a file or folder"),
    ],
)
def test_a_file_in_somebody_elses_folder_names_no_code_files_or_addresses(
    foveola_command, repository, table, line, why
):
    (repository / "evil.py").write_text("raise SystemExit('code was run')")
    (repository / "foveola.toml").write_text(f"[{table}]\n{line}")
    code, _, err = foveola_command("recipes")
    assert code == 2
    assert "cannot be set in a file, because " + why in err
    assert "code was run" not in err


def test_every_option_has_a_type_that_files_know(repository):
    """So that a new option of another type is noticed."""
    import typer

    from foveola.cli import app
    from foveola.cli.defaults import _TYPES, Command, _options, _why_not

    for command in typer.main.get_command(app).commands.values():
        for name, option in _options(command).items() if isinstance(command, Command) else ():
            assert option.type in _TYPES or _why_not(name, option), name


def test_a_broken_project_file_without_foveola_is_not_ours(foveola_command, repository):
    (repository / "pyproject.toml").write_text("[broken")
    assert foveola_command("recipes").code == 0
    (repository / "pyproject.toml").write_text("[broken\n[tool.foveola]")
    assert foveola_command("recipes").code == 2
    (repository / "pyproject.toml").write_text("[tool]\nfoveola = 3")
    assert "tool.foveola is not a table" in foveola_command("recipes").err


def test_names_are_printed_without_control_characters(foveola_command, repository, toy_npz):
    (repository / "foveola.toml").write_text('[train]\nrecipe = "a\\u001b[31mb"')
    code, _, err = foveola_command("train", toy_npz)
    assert code == 2
    assert "\x1b" not in err
