"""`audit`: what it prints, and where it writes."""

import json
from pathlib import Path

import pytest


def test_audit_prints_the_document_that_it_writes(foveola_command, arguments):
    code, out, _ = foveola_command("audit", *arguments["audit"], "--epochs", 1, "--folds", 2, "--json")
    document = json.loads(out)
    assert code == 0
    assert document == json.loads(Path("audits/toy/audit.json").read_text("utf-8"))
    assert document["settings"] == {
        "recipe": "tiny", "epochs": 1, "minimum_steps": 0, "folds": 2, "rounds": 3, "seed": 0
    }  # fmt: skip
    for suspect in document["label_suspects"]:
        assert suspect.keys() == {"split", "index", "path", "given", "suggested", "score"}


def test_the_table_names_counts_suspects_and_what_they_cost(foveola_command, arguments):
    code, out, err = foveola_command("audit", *arguments["audit"], "--retrain", "--out", "findings")
    assert code == 0
    document = json.loads(Path("findings/audit.json").read_text("utf-8"))
    lines = [line.rstrip() for line in out.splitlines()]
    assert f"likely label errors  {document['likely_label_errors']}" in lines
    assert "findings/audit.html" in out
    assert "without suspects" in out
    assert "network 9 of 9" in err


def test_quiet_says_nothing_on_the_way(foveola_command, arguments):
    assert foveola_command("audit", *arguments["audit"], "--quiet").err == ""


@pytest.mark.parametrize(
    ("option", "words"), [(("--recipe", "fist"), "fast"), (("--folds", 99), "60 different images cannot make 99 folds")]
)
def test_wrong_options_are_answered_and_leave_nothing(foveola_command, arguments, option, words):
    code, _, err = foveola_command("audit", *arguments["audit"], *option)
    assert code == 2
    assert words in err
    assert not Path("audits").exists()
