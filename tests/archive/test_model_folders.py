"""A wrong name of a network is answered with those there are."""

import pytest

from mvpose.archive.model_folders import require_model
from mvpose.errors import WeightsError


@pytest.fixture
def runs(tmp_path):
    for folder in ("baseline", "fused/model", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("baseline", "fused/model"):
        (tmp_path / folder / "model.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("basline", r"did you mean baseline\?"),
        ("fuse/model", "no model.json"),
        ("nothing_like_it", "there are baseline, fused/model"),
        ("fused", "fused/model"),
        ("nowhere/net", "there are none"),
    ],
)
def test_a_folder_without_a_network_is_refused_with_the_names_of_those_beside_it(runs, wrong, said):
    with pytest.raises(WeightsError, match=said):
        require_model(str(runs / wrong))


def test_a_folder_with_a_network_passes(runs):
    require_model(str(runs / "baseline"))
    require_model(str(runs / "fused" / "model"))
