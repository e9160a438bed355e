"""Settings from TOML, and what two settings differ in."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from mvpose.config import differences, digest, flatten, load_toml
from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 8
    name: str = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float = 0.5
    inner: Inner = field(default_factory=Inner)
    colour: Literal["red", "blue"] | None = None


def test_toml_fills_what_it_names_and_leaves_the_defaults():
    assert load_toml("x.toml", "[inner]\nsize = 3\n", Outer) == Outer(inner=Inner(size=3))


@pytest.mark.parametrize(
    ("text", "said"),
    [("rats = 1", "rats"), ("[inner]\nsise = 1", "sise"), ("rate = 'fast'", "float"), ("rate = = 1", "not valid TOML")],
)
def test_a_wrong_key_or_value_is_named_with_its_file(text, said):
    with pytest.raises(ConfigError, match=f"x.toml.*{said}"):
        load_toml("x.toml", text, Outer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rats = 1", r"x\.toml: no key is named 'rats' \(did you mean rate\?\)$"),
        ("[inner]\nnmae = 'b'", r"inner: no key is named 'nmae' \(did you mean name\?\)"),
        ("qqqq = 1", r"there are rate, inner, colour"),
        ("colour = 'bleu'", "colour: 'bleu' is not one of red, blue"),
    ],
)
def test_a_wrong_key_or_choice_is_answered_with_the_nearest_or_with_all_there_are(text, said):
    with pytest.raises(ConfigError, match=said):
        load_toml("x.toml", text, Outer)


def test_settings_flatten_to_dotted_names():
    assert flatten(Outer()) == {"rate": 0.5, "inner.size": 8, "inner.name": "a", "colour": None}


def test_digests_differ_with_any_setting_and_with_nothing_else():
    assert digest(Outer()) == digest(Outer(rate=0.5)) != digest(Outer(inner=Inner(size=9)))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_difference_is_told_with_both_values():
    assert differences(flatten(Outer()), flatten(Outer(rate=1.0))) == ["rate: was 0.5, now 1.0"]
    assert differences({"a": (1, 2)}, {"a": [1, 2]}) == []
