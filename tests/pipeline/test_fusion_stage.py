"""Canonical fusion in the detector's pass: which tokens and cameras the network gets, and where its joints go."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.confidence import AS_STATED
from mvpose.errors import ConfigError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.models.backbone_settings import CSPNeXtBackbone
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.joint_network import crop_from_image
from mvpose.models.detection.people import People
from mvpose.models.input_rule import input_rule
from mvpose.models.method import build_method
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.network_settings import TokenMethod
from mvpose.models.saved import SavedModel, load_model, save_model
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.fusion_stage import GUESSED, FusionStage
from mvpose.pipeline.network_stage import same_people
from mvpose.pipeline.plan_source import PlanSource
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import SECOND_LOOK
from mvpose.run.pose_tables import TableInfo, keypoints_from_table, keypoints_to_table
from mvpose.run.sequences import sampled_keypoints
from mvpose.scenes import Scene, ring4, two_people_crossing

SIZE = (192, 256)
SHIFT = 3.0
METHOD = TokenMethod(skeleton="halpe26", size=SIZE, backbone=CSPNeXtBackbone(weights="rtmpose_s_halpe26", frozen=True))


class Reporter(torch.nn.Module):
    """A network whose answer is in the tokens: x and y in the crop, plus a shift. It keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.given: list[tuple[torch.Tensor, ...]] = []
        self.sure, self.shift = 0.75, SHIFT

    def forward(self, crops, projections, present=None, keep_maps=False) -> MultiViewPrediction:
        self.given.append((crops, projections, present))
        shape, joints = crops.shape[:3], crops.shape[2]
        sure = self.sure * present[..., None].expand(shape).float()
        return MultiViewPrediction(
            joints=torch.zeros(shape[0], joints, 3), valid=torch.ones(shape[0], joints, dtype=torch.bool),
            confidence=torch.ones(shape[0], joints), joints_2d=crops[..., :2] + self.shift, confidence_2d=sure,
            views_used=sure > 0,
        )  # fmt: skip


class KnownDetector(TopDownDetector):
    """The scene's people, with tokens that state their joints' places in their crops."""

    crop_size, digest, chunk_frames, confidence_scale = SIZE, "known", 8, AS_STATED

    def __init__(self, scene: Scene) -> None:
        self.keypoints = scene.keypoints(noise_px=0.0)
        self.skeleton = self.keypoints.skeleton

    def __call__(self, views=()) -> list[list[People]]:
        views, frames = self.keypoints.box_score.shape[:2]
        return [[self._of(v, t) for t in range(frames)] for v in range(views)]

    def _of(self, v: int, t: int) -> People:
        found, there = self.keypoints, self.keypoints.box_score[v, t] > 0
        box, xy = found.box[v, t, there], np.nan_to_num(found.xy[v, t, there])
        crop = crop_from_image(box.astype(np.float64), SIZE)
        tokens = np.einsum("pij,pkj->pki", crop[..., :2], xy) + crop[:, None, :, 2]
        return People(box, found.box_score[v, t, there], xy, found.confidence[v, t, there], tokens.astype(np.float32))


class SecondLooks(KnownDetector):
    """Finds in its boxes who was seen there by another detector."""

    def __init__(self, scene: Scene, there: list[People]) -> None:
        super().__init__(scene)
        self.there = iter(there)

    def in_boxes(self, images, box, score) -> People:
        found = [next(self.there) for _ in images]
        parts = (np.concatenate([getattr(p, name) for p in found]) for name in ("box", "xy", "confidence", "tokens"))
        boxes, xy, confidence, tokens = parts
        return People(boxes, score.astype(np.float32), xy, confidence, tokens)


def stage_of(scene: Scene) -> tuple[FusionStage, Reporter, KnownDetector]:
    stage, network = FusionStage.__new__(FusionStage), Reporter()
    detector = KnownDetector(scene)
    stage.detector, stage.skeleton, stage.config = detector, detector.skeleton, ReconstructionConfig()
    stage.model = SavedModel(network, input_rule(METHOD, 1.25), METHOD, "", {})
    return stage, network, detector


def places_of(found: list[list[People]], scene: Scene) -> np.ndarray:
    return same_people(stack_people(found, scene.skeleton), scene.rig, ReconstructionConfig()).places.numpy()


def test_each_person_gets_the_answer_of_its_own_tokens_and_cameras() -> None:
    """Fails if tokens, cameras or answers of people, views or frames are exchanged, or if the lens is left out."""
    scene = two_people_crossing(num_frames=4)
    stage, network, detector = stage_of(scene)
    found = detector()
    fused = stage.fused(found, places_of(found, scene), scene.rig)
    for view, before in zip(fused, found, strict=True):
        for after, own in zip(view, before, strict=True):
            scale = crop_from_image(own.box.astype(np.float64), SIZE)[:, :1, :1]
            np.testing.assert_allclose(after.xy, own.xy + SHIFT / scale, atol=2e-2)
            np.testing.assert_array_equal(after.confidence, own.confidence)
            assert after.tokens is None
            np.testing.assert_array_equal(after.box, own.box)
    for tokens, cameras, present in network.given:
        assert tokens.shape[1:] == (4, len(detector.skeleton.joints), 2) and present.all()
        for joint in range(0, tokens.shape[2], 4):
            rows = torch.cat(
                [
                    tokens[:, :, joint, :1, None] * cameras[..., 2:, :] - cameras[..., :1, :],
                    tokens[:, :, joint, 1:, None] * cameras[..., 2:, :] - cameras[..., 1:2, :],
                ],
                dim=-2,
            ).flatten(1, 2)
            point = torch.linalg.svd(rows.double()).Vh[:, -1]
            image = torch.einsum("nvij,nj->nvi", cameras.double(), point)
            assert (image[..., :2] / image[..., 2:] - tokens[:, :, joint]).norm(dim=-1).max() < 0.6


def test_joints_that_the_network_takes_to_be_wrong_do_not_count() -> None:
    """Fails if the learned likelihoods are ignored."""
    scene = two_people_crossing(num_frames=2)
    stage, network, detector = stage_of(scene)
    network.sure = 0.2
    found = detector()
    places = same_people(stack_people(found, detector.skeleton), scene.rig, stage.config).places.numpy()
    for view in stage.fused(found, places, scene.rig):
        for people in view:
            assert (people.confidence == np.float32(GUESSED.likelihood_of(np.array(0.2)))).all()


@pytest.mark.parametrize(("shift", "detected"), [(20.0, 1.0), (SHIFT, 0.1)])
def test_joints_that_their_own_view_did_not_see_count_little(shift: float, detected: float) -> None:
    """Found elsewhere by the detector, or hardly found. Fails if they count by what the network or the detector states.

    20 pixels of the crop are 10 % of the person.
    """
    scene = two_people_crossing(num_frames=2)
    stage, network, detector = stage_of(scene)
    network.shift = shift
    found = [[replace(p, confidence=np.full_like(p.confidence, detected)) for p in view] for view in detector()]
    guess = np.float32(GUESSED.likelihood_of(np.array(network.sure)))
    assert 0.2 < guess < stage.config.min_confidence
    for view, before in zip(stage.fused(found, places_of(detector(), scene), scene.rig), found, strict=True):
        for after, own in zip(view, before, strict=True):
            assert (after.confidence == guess).all()
            assert (np.linalg.norm(after.xy - own.xy, axis=-1) > 1.0).all()


def test_somebody_whom_one_view_shows_keeps_the_detectors_joints() -> None:
    scene = ring4(num_frames=1)
    stage, network, detector = stage_of(scene)
    found = detector()
    nobody = People(
        *(part[:0] for part in (found[0][0].box, found[0][0].score, found[0][0].xy, found[0][0].confidence))
    )
    for v in (0, 1, 2):
        found[v][0] = nobody
    fused = stage.fused(found, places_of(found, scene), scene.rig)
    np.testing.assert_array_equal(fused[3][0].xy, found[3][0].xy)
    assert not network.given and [len(view[0].score) for view in fused] == [0, 0, 0, 1]


def test_a_view_that_missed_somebody_is_fused_as_well() -> None:
    """Fails if second looks are left out of the stage, or their boxes or tokens are lost on the way to the network."""
    scene = ring4(num_frames=2)
    stage, network, detector = stage_of(scene)
    whole = detector()
    without = scene.detected.copy()
    without[2] = False
    stage.detector = SecondLooks(replace(scene, detected=without), whole[2])
    chunk = [ViewFrames(np.full((2, 1, 1, 3), v, np.uint8), np.ones(2, bool)) for v in range(4)]
    fused = stage.fused(*stage.matched(chunk, stage.detector(), scene.rig), scene.rig)
    assert all(present.all() for _, _, present in network.given)
    for view, before in zip(fused, whole, strict=True):
        for after, own in zip(view, before, strict=True):
            scale = crop_from_image(own.box.astype(np.float64), SIZE)[:, :1, :1]
            np.testing.assert_allclose(after.xy, own.xy + SHIFT / scale, atol=2e-2)
    assert [people.score.tolist() for people in fused[2]] == [[SECOND_LOOK]] * 2


@pytest.mark.footage
def test_only_what_was_trained_is_saved_and_the_rest_is_read_from_the_card(weights: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    torch.manual_seed(0)
    network = build_method(METHOD).eval()
    save_model(str(tmp_path / "model"), network, input_rule(METHOD, 1.25), METHOD, {})
    assert (tmp_path / "model" / "weights.safetensors").stat().st_size < 6e6
    loaded = load_model(str(tmp_path / "model"))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value)


@pytest.mark.footage
def test_another_detector_than_the_one_it_was_trained_on_is_refused(weights: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    sha256 = save_model(str(tmp_path), build_method(METHOD).eval(), input_rule(METHOD, 1.25), METHOD, {})
    with pytest.raises(ConfigError, match="the model fuses tokens of rtmpose_s_halpe26, but the detector is"):
        FusionStage(
            PlanSource(str(tmp_path), ""),
            DetectorConfig(joint_card="other"),
            str(tmp_path),
            sha256,
            ReconstructionConfig(),
        )


def test_cameras_are_judged_by_the_joints_of_the_detector() -> None:
    """Corrected joints agree with the cameras that corrected them. Fails if tables lose or mix up the detector's."""
    scene = two_people_crossing(num_frames=4)
    stage, _, detector = stage_of(scene)
    stage.scale = AS_STATED
    found = detector()
    places = same_people(stack_people(found, detector.skeleton), scene.rig, stage.config).places.numpy()
    keypoints = stage.stacked(stage.fused(found, places, scene.rig))
    info = TableInfo(
        capture_id="one", start=0, stop=4, fps=None, cameras=scene.rig.names, skeleton=detector.skeleton, fingerprint=""
    )
    table = keypoints_to_table(keypoints, info)
    read, _ = keypoints_from_table(table)
    np.testing.assert_array_equal(read.xy, keypoints.xy)
    sampled = sampled_keypoints([table], np.array([1, 3]))
    own = stack_people(found, detector.skeleton)
    np.testing.assert_array_equal(sampled.xy, own.xy[:, [1, 3]])
    np.testing.assert_array_equal(sampled.confidence, own.confidence[:, [1, 3]])
    assert np.nanmax(np.abs(read.xy - own.xy)) > 1.0
