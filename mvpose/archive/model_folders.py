"""Where networks are, so that a wrong name can be answered with the right ones."""

from __future__ import annotations

from mvpose.archive.locations import exists, is_folder, join, list_folder, name
from mvpose.config import nearest
from mvpose.errors import WeightsError
from mvpose.models.saved import DESCRIPTION


def require_model(uri: str) -> None:
    """WeightsError, with the names of networks nearby, where a folder holds none."""
    if exists(join(uri, DESCRIPTION)):
        return
    if exists(join(uri, "model", DESCRIPTION)):
        raise WeightsError(f"no model in {uri} itself: it is in its folder model, {join(uri, 'model')}.")
    parent = uri.rstrip("/").rpartition("/")[0] or "."
    beside = list_folder(parent) if is_folder(parent) else []
    models = [name(f) for f in beside if exists(join(f, DESCRIPTION))]
    models += [f"{name(f)}/model" for f in beside if exists(join(f, "model", DESCRIPTION))]
    raise WeightsError(
        f"no model in {uri}: it has no {DESCRIPTION} (of the models in {parent}: {nearest(name(uri), models)}). A "
        "version in the registry is named models:/NAME@ALIAS."
    )
