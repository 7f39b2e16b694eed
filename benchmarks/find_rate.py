"""Does a training with the suggested learning rate reach the accuracy of the recipe's own rate?

    python benchmarks/find_rate.py [--seeds 3] [--out find_rate.json]

Recipes, optimizers and data are those of PAIRS; every seed has its own range test. Prints a Markdown table with the
mean test accuracy over the seeds.
"""

import argparse
import json
import statistics
from pathlib import Path

import foveola
from foveola.recipe import load_recipe

# recipe, data, further settings
PAIRS: list[tuple[str, str, dict[str, object]]] = [
    ("fast", "fashion-mnist", {"epochs": 2, "minimum_steps": 0}),
    ("fast", "digits", {}),
    ("lenet5", "mnist", {}),
    ("west", "fashion-mnist", {"epochs": 3}),
    ("mlp", "digits", {}),
    ("fast", "digits", {"optimizer": "sgd", "learning_rate": 0.1}),
    ("lenet5", "mnist", {"optimizer": "sgd", "learning_rate": 0.03}),
    ("mlp", "digits", {"optimizer": "sgd", "learning_rate": 0.1}),
    ("west", "fashion-mnist", {"optimizer": "sgd", "learning_rate": 0.03, "epochs": 3}),
    ("fast", "fashion-mnist", {"optimizer": "adamw", "learning_rate": 0.01, "epochs": 2, "minimum_steps": 0}),
    ("mlp", "digits", {"optimizer": "adamw"}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("find_rate.json"))
    arguments = parser.parse_args()
    rows = []
    print("| recipe | data | optimizer | own rate | suggestions | accuracy, own | accuracy, suggested |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, data, settings in PAIRS:
        row = measure(name, data, settings, range(arguments.seeds))
        rows.append(row)
        suggestions = ", ".join(f"{rate:g}" for rate in row["suggestions"])
        own, suggested = (statistics.mean(row[key]) for key in ("own_accuracy", "suggested_accuracy"))
        cells = (f"`{name}`", data, row["optimizer"], f"{row['own']:g}", suggestions, f"{own:.4f}", f"{suggested:.4f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


def measure(name: str, data: str, settings: dict[str, object], seeds: range) -> dict[str, object]:
    recipe, dataset = load_recipe(name, settings), foveola.load(data)
    row: dict[str, object] = {"recipe": name, "data": data, "optimizer": recipe.optimizer, "own": recipe.learning_rate}
    suggestions, own, suggested = [], [], []
    for seed in seeds:
        curve = foveola.find_rate(dataset, recipe, seed=seed, verbose=False)
        ratio = curve.suggestion / recipe.learning_rate
        changed = {
            "learning_rate": curve.suggestion,
            "muon_learning_rate": recipe.muon_learning_rate * ratio,
        }
        suggestions.append(curve.suggestion)
        for values, accuracies in (({}, own), (changed, suggested)):
            trained = foveola.train(dataset, recipe.model_copy(update=values), seed=seed, report=False, verbose=False)
            accuracies.append(trained.evaluation.accuracy.value)
    return row | {"suggestions": suggestions, "own_accuracy": own, "suggested_accuracy": suggested}


if __name__ == "__main__":
    main()
