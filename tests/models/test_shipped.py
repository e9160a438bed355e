"""Networks that are part of the package."""

import os

import pytest

from mvpose.models.detection.cards import card_names, file_sha256
from mvpose.models.saved import WEIGHTS, load_model
from mvpose.models.shipped import FUSION, model_folder, read_shipped, shipped_names


@pytest.mark.footage
def test_every_shipped_model_is_whole_and_its_card_says_what_it_is(weights, monkeypatch):
    """Fails if weights and description are of different trainings, or a card states no licence, data or figures."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    assert FUSION in shipped_names()
    for name in shipped_names():
        card, model = read_shipped(name), load_model(model_folder(name))
        assert card.name == name and card.detector in card_names()
        assert model.config.backbone.weights == card.detector
        assert model.sha256 == file_sha256(os.path.join(model_folder(name), WEIGHTS))
        assert card.licence.weights and card.trained_on and card.figures
        assert model.lineage["data_digest"] and model.lineage["metrics"]


def test_a_folder_is_not_taken_for_a_shipped_model(tmp_path):
    other = str(tmp_path / FUSION)
    assert model_folder(other) == other
    assert model_folder(FUSION) != FUSION
