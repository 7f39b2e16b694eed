"""Learning-rate schedules: constant, cosine, one-cycle, step."""

import math

from foveola.recipe import Recipe


def lr_schedule(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning-rate scale of a step: the factor on the recipe's learning rate, from 0 to 1.

    Parameters
    ----------
    step : index of the step, from 0
    steps : number of steps in the whole training
    steps_per_epoch : number of steps in an epoch

    Notes
    -----
    One-cycle is linear warm-up and linear decay to zero (after Smith and Topin, 2017); cosine falls to zero along half
    a period (Loshchilov and Hutter, 2017).
    """
    progress = (step + 1) / (steps + 1)
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return (1 + math.cos(math.pi * step / steps)) / 2
        case "one-cycle":
            return min(progress / recipe.warmup if recipe.warmup else 1.0, (1 - progress) / (1 - recipe.warmup))
        case "step":
            return recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
