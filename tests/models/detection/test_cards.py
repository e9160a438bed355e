import hashlib
import os
from importlib.resources import files

import pytest

from mvpose.errors import ConfigError, WeightsError
from mvpose.models.detection.cards import card_names, locate, read_card, weights_folder
from mvpose.skeleton import SKELETONS

MINIMAL = """
name = "mine"
file = "mine.onnx"
sha256 = "{digest}"
input_size = [8, 16]
colour_order = "rgb"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[licence]
code = "MIT"
weights = "MIT"
training_data = "own"
"""


@pytest.fixture
def card_path(tmp_path, monkeypatch) -> str:
    """A card of a user's own, and its weights in MVPOSE_WEIGHTS."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.onnx").write_bytes(b"weights")
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.format(digest=hashlib.sha256(b"weights").hexdigest()))
    return str(path)


@pytest.mark.parametrize("name", card_names())
def test_every_card_that_comes_along_is_complete(name):
    card = read_card(name)
    assert card.name == name
    assert card.skeleton is None or card.skeleton in SKELETONS
    assert card.package is not None and card.package.member.endswith(card.file)
    assert "unclear" in card.licence.training_data


@pytest.mark.parametrize("name", card_names())
def test_weights_that_came_with_their_card_have_its_digest(name, weights, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    assert locate(read_card(name)) == os.path.join(weights, read_card(name).file)


def test_a_card_of_ones_own_is_read_from_a_file(card_path):
    assert read_card(card_path).input_size == (8, 16)
    assert locate(read_card(card_path)).endswith("weights/mine.onnx")


def test_an_unknown_card_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="rtmpose_s_halpe26, yolox_tiny_humanart"):
        read_card("resnet")
    with pytest.raises(ConfigError, match=r"cannot read the model card nowhere/my\.toml"):
        read_card("nowhere/my.toml")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('file = "mine.onnx"', 'file = "mine.onnx"\ncolor = "rgb"', "color"),
        ('colour_order = "rgb"', 'colour_order = "cmyk"', "colour_order"),
        ("input_size = [8, 16]", "", "input_size"),
        ("input_size = [8, 16]", "input_size = [8, 16", "not valid TOML"),
    ],
)
def test_a_wrong_card_is_refused_with_the_key_named(card_path, before, after, complaint):
    with open(card_path) as file:
        text = file.read()
    with open(card_path, "w") as file:
        file.write(text.replace(before, after))
    with pytest.raises(ConfigError, match=complaint):
        read_card(card_path)


def test_missing_weights_say_how_to_get_them(card_path):
    os.remove(os.path.join(weights_folder(), "mine.onnx"))
    with pytest.raises(WeightsError, match="mvpose models fetch"):
        locate(read_card(card_path))


def test_tampered_weights_are_not_handed_out(card_path):
    with open(os.path.join(weights_folder(), "mine.onnx"), "ab") as file:
        file.write(b"!")
    with pytest.raises(WeightsError, match="damaged or a different one"):
        locate(read_card(card_path))


def test_weights_lie_in_the_named_folder_then_the_named_cache_then_the_home_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("MVPOSE_WEIGHTS", raising=False)
    monkeypatch.delenv("MVPOSE_CACHE", raising=False)
    assert weights_folder() == "/home/someone/.cache/mvpose/weights"
    monkeypatch.setenv("MVPOSE_CACHE", "/scratch/cache")
    assert weights_folder() == "/scratch/cache/weights"
    monkeypatch.setenv("MVPOSE_WEIGHTS", "/models")
    assert weights_folder() == "/models"


def test_cards_travel_with_the_package():
    assert (files("mvpose.models.detection") / "cards" / "rtmpose_s_halpe26.toml").is_file()
