"""Settings from TOML, and what two settings differ in."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from mvpose.config import (
    differences,
    digest,
    flatten,
    load_toml,
    structure,
    tagged_union,
    with_kind,
    without_other_kinds,
)
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
        ("rats = 1", r"x\.toml: unknown key 'rats' \(did you mean rate\?\)$"),
        ("[inner]\nnmae = 'b'", r"inner: unknown key 'nmae' \(did you mean name\?\)"),
        ("qqqq = 1", r"there are rate, inner, colour"),
        ("colour = 'bleu'", "colour: 'bleu' is not one of red, blue"),
    ],
)
def test_a_wrong_key_or_choice_is_answered_with_the_nearest_or_with_all_there_are(text, said):
    with pytest.raises(ConfigError, match=said):
        load_toml("x.toml", text, Outer)


@dataclass(frozen=True, kw_only=True)
class Round:
    shape: Literal["disc", "ball"] = "disc"
    radius: float = 1.0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Square:
    shape: Literal["square"] = "square"
    side: float = 1.0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    figure: Round | Square = field(default_factory=Round)


def test_the_tag_names_the_member_of_a_union_and_without_it_the_first_is_meant():
    assert load_toml("x", "[figure]\nradius = 2", Drawing).figure == Round(radius=2.0)
    assert load_toml("x", "[figure]\nshape = 'ball'", Drawing).figure == Round(shape="ball")
    assert load_toml("x", "[figure]\nshape = 'square'\nside = 3", Drawing).figure == Square(side=3.0)
    assert structure({"shape": "square"}, Round | Square, "x") == Square()
    assert tagged_union(Round | None) is None and tagged_union(Inner | Outer) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shape = 'square'\nradius = 2", "figure: radius belongs to shape disc and ball, but shape is square"),
        ("side = 2", "figure: side belongs to shape square, but shape is disc"),
        ("shape = 'sqare'", "figure: 'sqare' is not one of disc, ball, square"),
        ("radios = 2", r"figure: unknown key 'radios' \(did you mean radius\?\)"),
    ],
)
def test_a_setting_of_another_kind_is_refused(text, said):
    with pytest.raises(ConfigError, match=rf"x\.toml: {said}"):
        load_toml("x.toml", f"[figure]\n{text}", Drawing)


def test_files_of_before_lose_the_settings_of_other_kinds_and_no_others():
    values = {"figure": {"shape": "square", "side": 2.0, "radius": 1.0, "colour": "red"}}
    assert without_other_kinds(values, Drawing) == {"figure": {"shape": "square", "side": 2.0, "colour": "red"}}


def test_another_kind_keeps_what_both_have():
    assert with_kind(Round(name="a", radius=3.0), Round | Square, "square") == Square(name="a")
    assert with_kind(Round(radius=3.0), Round | Square, "ball") == Round(shape="ball", radius=3.0)


def test_settings_flatten_to_dotted_names():
    assert flatten(Outer()) == {"rate": 0.5, "inner.size": 8, "inner.name": "a", "colour": None}


def test_digests_differ_with_any_setting_and_with_nothing_else():
    assert digest(Outer()) == digest(Outer(rate=0.5)) != digest(Outer(inner=Inner(size=9)))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_difference_is_told_with_both_values():
    assert differences(flatten(Outer()), flatten(Outer(rate=1.0))) == ["rate: was 0.5, now 1.0"]
    assert differences({"a": (1, 2)}, {"a": [1, 2]}) == []
