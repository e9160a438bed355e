"""The named recipes are whole: each can be read, contradicts nothing, and its network can be built."""

import json
import os

import pytest
import torch

from mvpose.cli import command_of
from mvpose.commands.parsing import named_run
from mvpose.config import flatten
from mvpose.models.method import build_method
from mvpose.training.optimisation import build_optimiser

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "jobs", "configs")
GOLDEN = os.path.join(os.path.dirname(__file__), "..", "golden", "recipes.json")
RECIPES = sorted(name for name in os.listdir(CONFIGS) if name.startswith("train-"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_trained(name):
    recipe = named_run(os.path.join(CONFIGS, name), command_of("train"))
    recipe.training().check()
    with torch.device("meta"):
        network = build_method(recipe.method, pretrained=False)
        assert build_optimiser(network, recipe.optimisation).param_groups


def test_recipes_state_the_settings_that_were_agreed():
    """What each, with those that it extends, sets other than the defaults.

    To change it deliberately: MVPOSE_GOLDEN=write pytest tests/training/test_recipes.py.
    """
    stated = {}
    for name in sorted(os.listdir(CONFIGS)):
        verb = "reconstruct" if name == "demo.toml" else name.split("-")[0].removesuffix(".toml")
        if verb != "render":  # read by `dataset render`
            command = command_of(verb)
            default = flatten(command())
            values = flatten(named_run(os.path.join(CONFIGS, name), command))
            stated[name] = {key: value for key, value in values.items() if key not in default or value != default[key]}
    text = json.dumps(stated, indent=1, sort_keys=True) + "\n"
    if os.environ.get("MVPOSE_GOLDEN") == "write":
        with open(GOLDEN, "w") as file:
            file.write(text)
    with open(GOLDEN) as file:
        assert text == file.read()
