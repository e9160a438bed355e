"""Judges that need no truth, on networks whose errors are known."""

import torch

from mvpose.benchmarks.cover import _conditions, _points, _scored, _Views
from mvpose.models.multiview import MultiViewPrediction
from mvpose.skeleton import HUMAN36M17
from tests.training.conftest import SIDE, people, ring

FRAMES = 6
MM_A_PIXEL = 1000 * 4.5 / 260


class Oracle(torch.nn.Module):
    """Says where the joints are, shifted by `shift_px` in the first camera; a covered image makes it lie."""

    def __init__(self, shift_px: float) -> None:
        super().__init__()
        self.shift_px = shift_px
        self.truth = torch.from_numpy(people(FRAMES)).float()

    def forward(self, crops, projections, present) -> MultiViewPrediction:
        which = crops[:, 0, 0, 0, -1].long()
        points = torch.einsum(
            "bvmk,bjk->bvjm", projections, torch.nn.functional.pad(self.truth[which], (0, 1), value=1.0)
        )
        points = points[..., :2] / points[..., 2:]
        points[:, 0] += self.shift_px
        points += 40.0 * (crops[:, :, 0, -1, 0] == 128)[..., None, None]
        sure = present[..., None].expand(points.shape[:3]).float()
        joints = self.truth[which]
        return MultiViewPrediction(
            joints=joints, valid=sure[:, 0] > 0, confidence=sure[:, 0], joints_2d=points, confidence_2d=sure,
            views_used=sure > 0,
        )  # fmt: skip


def views() -> _Views:
    crops = torch.zeros((FRAMES, 4, 3, SIDE, SIDE), dtype=torch.uint8)
    crops[..., 0, -1] = torch.arange(FRAMES, dtype=torch.uint8)[:, None, None]
    projections = ring().projections.float().expand(FRAMES, -1, -1, -1).contiguous()
    return _Views(crops, projections, torch.ones(FRAMES, 4, dtype=torch.bool))


def test_a_network_that_is_right_agrees_with_itself_and_its_limbs_keep_their_length() -> None:
    network = Oracle(0.0)
    found = _scored(network, views(), HUMAN36M17, _points(network, views()))
    assert found.agreement_mm < 0.1 and found.left_out_mm < 0.1 and found.found == 1.0
    assert found.limb_spread < 0.01


def test_a_view_that_is_off_by_a_pixel_is_reported_in_millimetres_at_the_person() -> None:
    reference = _points(Oracle(0.0), views())
    found = _scored(Oracle(2.0), views(), HUMAN36M17, reference)
    # The first camera is off by 2 px on both axes; its share of the mean over four cameras lies between all and none.
    assert 0.1 * MM_A_PIXEL < found.agreement_mm < 2 * 2**0.5 * MM_A_PIXEL
    assert found.left_out_mm > 0.2 * MM_A_PIXEL


def test_covers_and_absences_touch_one_camera_each() -> None:
    conditions = _conditions(views())
    assert [len(variants) for variants in conditions.values()] == [1, 4, 4, 4]
    fewer = conditions["one camera fewer"][2]
    assert fewer.present.sum() == 3 * FRAMES and not fewer.present[:, 2].any()
    covered = conditions["lower half covered"][1]
    assert (covered.crops[:, 1, :, SIDE // 2 :] == 128).all() and (covered.crops[:, 0] == views().crops[:, 0]).all()
    clean = _scored(Oracle(0.0), views(), HUMAN36M17, _points(Oracle(0.0), views()))
    lying = _scored(Oracle(0.0), covered, HUMAN36M17, _points(Oracle(0.0), views()))
    assert lying.agreement_mm > clean.agreement_mm + 0.1 * MM_A_PIXEL
