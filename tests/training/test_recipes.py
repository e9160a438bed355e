"""The named recipes are whole: each can be read, contradicts nothing, and its network can be built."""

import os

import pytest
import torch

from mvpose.commands.train import Train
from mvpose.config import load_toml
from mvpose.models.method import build_method
from mvpose.storage.locations import read_text
from mvpose.training.optimisation import build_optimiser

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "jobs", "configs")
RECIPES = sorted(name for name in os.listdir(CONFIGS) if name.startswith("train-"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_trained(name):
    recipe = load_toml(name, read_text(os.path.join(CONFIGS, name)), Train)
    recipe.training().check()
    with torch.device("meta"):
        network = build_method(recipe.method, pretrained=False)
        assert build_optimiser(network, recipe.optimisation).param_groups
