"""Random looks of people: the card's skins, clothes, shoes and hair."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from mvpose.rendering.assets import Assets
from mvpose.rendering.shape import Shape

Colour = tuple[float, float, float]
_WHITE: Colour = (1.0, 1.0, 1.0)
_LONG_HAIR = ("bob", "braid", "long", "ponytail")
_UNDER_HAT = "short04"
_SILVER = "bob02"
_SKIRTS = ("female_elegantsuit01",)
_PLAIN = {"male_worksuit01": (0.05, 0.16, 0.42)}
"""Outfits in one colour: their image was made for an older mesh and does not fit the texture coordinates."""
_IRISES: tuple[Colour, ...] = ((0.05, 0.025, 0.01), (0.12, 0.06, 0.02), (0.08, 0.14, 0.25), (0.09, 0.14, 0.07))
_LIGHT_EYES = 0.4
"""Share of blue and green eyes among mostly caucasian people; others have brown eyes."""


@dataclass(frozen=True)
class Garment:
    """A mesh bound to the base mesh by its .mhclo file."""

    name: str
    """hair, clothes, shoes or hat."""
    mesh: str
    binding: str
    texture: str
    """Empty for plain `colour`."""
    colour: Colour
    is_skirt: bool = False


@dataclass(frozen=True)
class Look:
    """All parameters of a person. Two equal looks are the same person."""

    shape: Shape
    skin: str
    iris: Colour
    garments: tuple[Garment, ...]


def draw_look(rng: np.random.Generator, assets: Assets) -> Look:
    """Draw a person's body, skin and clothes: adults of both sexes, 20 to 90 years, of three origins and mixtures."""
    shape = _draw_shape(rng)
    origin = max(shape.origin, key=lambda name: shape.origin[name])
    sex = "male" if shape.male > 0.5 else "female"
    age = "young" if shape.old < 0.25 else "middleage" if shape.old < 0.6 else "old"
    skin = _one_of(rng, assets.card.keys(f"makehuman/skins/{age}_{origin}_{sex}/", ".png"))
    light = origin == "caucasian" and rng.random() < _LIGHT_EYES
    iris = _IRISES[int(rng.integers(2)) + 2 * light]
    garments = [draw_outfit(rng, sex, assets), draw_shoes(rng, assets)]
    if rng.random() < 0.1:
        garments += [_hair(_UNDER_HAT, rng, shape, assets), hat(rng)]
    else:
        garments.append(_hair(_draw_style(rng, sex, origin, assets), rng, shape, assets))
    return Look(shape, skin, iris, tuple(garments))


def draw_outfit(rng: np.random.Generator, sex: str, assets: Assets) -> Garment:
    """Draw clothes for one sex; a quarter of the women wear men's trousers and shirt."""
    made_for = "male" if sex == "male" or rng.random() < 0.25 else "female"
    folder = _one_of(rng, _folders(assets, f"makehuman/clothes/{made_for}"))
    return garment("clothes", folder, _cloth_colour(rng), assets)


def draw_shoes(rng: np.random.Generator, assets: Assets) -> Garment:
    """Draw one of six pairs."""
    return garment("shoes", _one_of(rng, _folders(assets, "makehuman/clothes/shoes")), _cloth_colour(rng), assets)


def hat(rng: np.random.Generator) -> Garment:
    """A fedora, straight or cocked; it has no image, so it has one colour."""
    file = _one_of(rng, ["fedora", "fedora_cocked"])
    red, green, blue = colorsys.hsv_to_rgb(float(rng.random()), 0.4, float(rng.uniform(0.02, 0.4)))
    path = f"makehuman/clothes/fedora01/{file}"
    return Garment("hat", f"{path}.obj", f"{path}.mhclo", "", (red, green, blue))


def garment(name: str, folder: str, colour: Colour, assets: Assets) -> Garment:
    """The garment of a folder, its texture multiplied by `colour`."""
    (mesh,) = assets.card.keys(folder, ".obj")
    (binding,) = assets.card.keys(folder, ".mhclo")
    (texture,) = assets.card.keys(folder, ".png")
    outfit = folder.split("/")[-2]
    if outfit in _PLAIN:
        texture, (red, green, blue) = "", colour
        colour = (_PLAIN[outfit][0] * red, _PLAIN[outfit][1] * green, _PLAIN[outfit][2] * blue)
    return Garment(name, mesh, binding, texture, colour, is_skirt=outfit in _SKIRTS)


def _draw_shape(rng: np.random.Generator) -> Shape:
    male = float(rng.random() < 0.5)
    shares = rng.dirichlet([0.25, 0.25, 0.25])
    middle, spread = (1.76, 0.07) if male else (1.63, 0.065)
    return Shape(
        male=male,
        old=float(rng.beta(1.2, 2.0)),
        muscle=float(np.clip(rng.normal(0.5 + 0.1 * male, 0.15), 0.0, 1.0)),
        weight=float(np.clip(rng.normal(0.5, 0.17), 0.0, 1.0)),
        origin=dict(zip(("african", "asian", "caucasian"), shares.tolist(), strict=True)),
        stature_m=middle + spread * float(np.clip(rng.normal(), -2.5, 2.5)),
    )


def _draw_style(rng: np.random.Generator, sex: str, origin: str, assets: Assets) -> str:
    styles = [folder.split("/")[-2] for folder in _folders(assets, "makehuman/hair/")]
    longs = [style for style in styles if style.startswith(_LONG_HAIR)]
    shorts = [style for style in styles if style.startswith("short")]
    if rng.random() < (0.4 if origin == "african" else 0.02):
        return "afro01"
    return _one_of(rng, longs if rng.random() < (0.85 if sex == "female" else 0.08) else shorts)


def _hair(style: str, rng: np.random.Generator, shape: Shape, assets: Assets) -> Garment:
    """Hair images are brown: tints below 1 darken them, above 1 bleach or grey them. One is silver and not tinted."""
    grey = rng.random() < 1.2 * shape.old - 0.3
    fair = shape.origin["caucasian"] > 0.5 and rng.random() < 0.35
    if grey:
        level = float(rng.uniform(1.0, 1.8))
        colour = (level, 1.15 * level, 1.45 * level)
    elif fair:
        colour = (float(rng.uniform(1.2, 1.9)), float(rng.uniform(1.0, 1.5)), float(rng.uniform(0.6, 1.0)))
    else:
        level = float(rng.uniform(0.2, 0.9))
        colour = (level, level * float(rng.uniform(0.75, 1.0)), level * float(rng.uniform(0.6, 1.0)))
    if style == _SILVER:
        brightest = max(*colour, 1.0)
        colour = (colour[0] / brightest, colour[1] / brightest, colour[2] / brightest)
    return garment("hair", f"makehuman/hair/{style}/", colour, assets)


def _cloth_colour(rng: np.random.Generator) -> Colour:
    """The image's own colour for two in five, otherwise dyed and darkened."""
    if rng.random() < 0.4:
        return _WHITE
    return colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(0.0, 0.7)), float(rng.uniform(0.3, 1.0)))


def _folders(assets: Assets, prefix: str) -> tuple[str, ...]:
    return tuple(sorted({key.rpartition("/")[0] + "/" for key in assets.card.keys(prefix, ".png")}))


def _one_of(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
