"""`evaluate`: the figures of a model."""

import json
from pathlib import Path


def test_evaluate_writes_the_same_document(foveola_command, arguments):
    code, out, _ = foveola_command("evaluate", *arguments["evaluate"], "--json", "--out", "figures.json")
    assert code == 0
    assert json.loads(Path("figures.json").read_text()) == json.loads(out)
