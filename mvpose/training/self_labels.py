"""3D labels of a table of samples without its 3D truth: EpipolarPose's self-supervision.

A frozen teacher finds 2D joints in all views of a sample; `single_view.epipolar_pose.make_labels` triangulates them.
The cameras' poses are the table's (`known`), or recovered from the same 2D joints, pooled over the samples of a file,
which must share a static rig (`estimated`): a converted dataset has a file per capture, and people rendered for one rig
have 50 samples per file. Images, boxes and intrinsics are the table's; its 3D truth is not read.

A recovered rig has no unit and no vertical. Labels get both by a rule: bones from hip to ankle are 0.491 of a stature
of `height_m` (Winter, Biomechanics and Motor Control of Human Movement: thigh 0.245, shank 0.246), in the median over
the samples of a file; up is the mean direction from the ankles to the shoulders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.datasets.files import DatasetError
from mvpose.datasets.origins import TRAINED_ON, VALIDATED_ON
from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import Sample, observed
from mvpose.datasets.sample_table import read_samples, sample_files
from mvpose.errors import CalibrationError, ConfigError
from mvpose.geometry.camera import CameraRig, pinhole_of
from mvpose.geometry.lens import Lens
from mvpose.geometry.rigid import Rigid
from mvpose.models.detection.cards import read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.joint_network import JointNetwork, joint_set
from mvpose.models.network_settings import BOTTOM_UP, LIFTING
from mvpose.models.saved import DESCRIPTION, SavedModel, open_model
from mvpose.models.single_view.epipolar_pose import make_labels
from mvpose.rigs.rig_recovery import recover_rig
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.storage.locations import exists, join, name
from mvpose.training.batches import CropView, decoded, sample_arrays
from mvpose.training.token_views import usual_box

LEG_SHARE = 0.491
"""Hip to ankle along the bones, as a share of the stature."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Settings of labels without 3D truth."""

    teacher: str = "rtmpose_s_halpe26"
    """Frozen network that finds the 2D joints: folder of a trained model, or the model card of a joint network."""
    extrinsics: Literal["known", "estimated"] = "known"
    """Cameras' poses: the table's, or recovered from the 2D joints of each file's samples."""
    min_confidence: float = 0.0
    """Ignore 2D joints below this confidence. Maps may be broad and their means correct, so by default none: agreement
    between views decides."""
    max_error_px: float = 15.0
    """Maximum distance of a label's projection from the 2D joint, in pixels of the stored images, in two views or
    more."""
    min_joints: int = 8
    """Minimum number of labelled joints per sample."""
    height_m: float = 1.7
    """Mean stature of the people, which sets the unit of an estimated rig."""


@dataclass(frozen=True, kw_only=True)
class SelfLabels:
    """A `conversion.Dataset`: the samples of a table, with labels in place of its 3D truth. A shard is a file."""

    table: str
    """Folder or s3:// URI."""
    config: LabelConfig
    teacher_sha256: str

    @staticmethod
    def of(table: str, config: LabelConfig) -> SelfLabels:
        """Open the teacher; ConfigError or WeightsError if it is neither a model nor a card of a joint network."""
        teacher = _teacher(config.teacher)
        sha256 = teacher.sha256 if isinstance(teacher, SavedModel) else teacher.card.sha256
        return SelfLabels(table=table, config=config, teacher_sha256=sha256)

    def teacher_origins(self) -> dict[str, Any]:
        """What the teacher has seen, as its lineage has it. Of a card's network: photographs of no table of samples."""
        teacher = _teacher(self.config.teacher)
        if not isinstance(teacher, SavedModel):
            return {TRAINED_ON: [], VALIDATED_ON: []}
        return {key: teacher.lineage[key] for key in (TRAINED_ON, VALIDATED_ON) if key in teacher.lineage}

    @property
    def name(self) -> str:
        """Name of the labelled dataset: its recordings and people are the same."""
        return RowReader(self.table).dataset

    @property
    def skeleton(self) -> Skeleton:
        """The joint set of the teacher."""
        return _skeleton(_teacher(self.config.teacher))

    def shards(self) -> list[str]:
        """The table's files, by their paths in it."""
        return sorted(self._files())

    def read(self, shard: str) -> Iterator[Sample]:
        """Labelled samples of a file. DatasetError if none has a label, CalibrationError if no rig can be recovered."""
        config, teacher = self.config, _teacher(self.config.teacher)
        samples = list(read_samples(self._files()[shard]))
        seen = PooledJoints.of(samples, [_seen(teacher, sample, config.min_confidence) for sample in samples])
        labelled = list(_labelled(samples, seen, _skeleton(teacher), config))
        if not labelled:
            raise DatasetError(f"{shard}: no sample has {config.min_joints} joints on which two views agree.")
        yield from labelled

    def _files(self) -> dict[str, str]:
        root = f"{self.table.rstrip('/')}/"
        parts = ((file, file.removeprefix(root).removeprefix("samples/")) for file in sample_files(root.rstrip("/")))
        return {(part if part != file else name(file)).removesuffix(".parquet"): file for file, part in parts}


@dataclass(frozen=True, eq=False)
class PooledJoints:
    """2D joints of F samples in the U cameras that occur in them; float64."""

    names: tuple[str, ...]
    plane: Float[Tensor, "F U J 2"]
    """On the plane z = 1 of the ideal camera."""
    weights: Float[Tensor, "F U J"]
    """0: not found, or not in this sample."""
    focal: Float[Tensor, "F U"]
    """Pixels of the stored image; 1 where there is none."""
    camera_from_world: Rigid
    """F x U, as in the table; the identity where there is none."""

    @staticmethod
    def of(
        samples: Sequence[Sample], seen: Sequence[tuple[Float[Tensor, "_ J 2"], Float[Tensor, "_ J"]]]
    ) -> PooledJoints:
        """Arrange what was seen in each sample by its cameras."""
        names = tuple(dict.fromkeys(n for sample in samples for n in sample.rig.names))
        count, joints = len(samples), seen[0][0].shape[1]
        plane = torch.zeros(count, len(names), joints, 2, dtype=torch.float64)
        weights, focal = torch.zeros_like(plane[..., 0]), torch.ones_like(plane[..., 0, 0])
        pose = Rigid.identity(count, len(names))
        rotation, translation = pose.rotation.clone(), pose.translation.clone()
        for i, (sample, (points, weight)) in enumerate(zip(samples, seen, strict=True)):
            places = [names.index(n) for n in sample.rig.names]
            plane[i, places], weights[i, places] = points.double(), weight.double()
            focal[i, places] = sample.rig.focal.double().mean(dim=-1)
            rotation[i, places] = sample.rig.camera_from_world.rotation.double()
            translation[i, places] = sample.rig.camera_from_world.translation.double()
        return PooledJoints(names, plane, weights, focal, Rigid(rotation, translation))

    @property
    def intrinsics(self) -> Float[Tensor, "F U 3 3"]:
        """K of cameras of the same focal lengths whose principal point is pixel (0, 0)."""
        one = torch.ones_like(self.focal)
        return torch.diag_embed(torch.stack([self.focal, self.focal, one], dim=-1))

    def recovered(self) -> Rigid:
        """Poses of the U cameras from the joints alone, up to scale; CalibrationError as in `recover_rig`."""
        there = (self.weights > 0).any(dim=-1)
        # One camera with one focal length: a median of the samples' crops.
        focal = torch.where(there, self.focal, torch.nan).nanmedian(dim=0).values.nan_to_num(1.0)[:, None].expand(-1, 2)
        count = len(self.names)
        rig = CameraRig(
            self.names, focal, torch.zeros_like(focal), Lens.none(count), Rigid.identity(count), (2 * focal).long()
        )
        pixels = (self.plane * focal[:, None]).transpose(0, 1).flatten(1, 2)
        return recover_rig(rig, pixels, self.weights.transpose(0, 1).flatten(1, 2)).rig.camera_from_world


def _labelled(
    samples: Sequence[Sample], seen: PooledJoints, skeleton: Skeleton, config: LabelConfig
) -> Iterator[Sample]:
    estimated = seen.recovered() if config.extrinsics == "estimated" else None
    pose = estimated or seen.camera_from_world
    pixels = seen.plane * seen.focal[..., None, None]
    found = make_labels(pixels, seen.weights, seen.intrinsics, pose, config.max_error_px)
    points, valid = found.points_world, found.valid
    if estimated is not None:
        points, pose = upright(points, valid, estimated, skeleton, config.height_m)
    chosen = (valid.sum(dim=-1) >= config.min_joints).nonzero()[:, 0].tolist()
    for i in chosen:
        xyz = torch.where(valid[i, :, None], points[i], torch.nan).numpy()
        rig = samples[i].rig
        if estimated is not None:
            places = [seen.names.index(n) for n in rig.names]
            rig = replace(rig, camera_from_world=Rigid(pose.rotation[places], pose.translation[places]))
        visible, _ = observed(rig, xyz[None])
        yield replace(samples[i], xyz=xyz, skeleton=skeleton, rig=rig, visible=visible[0])


def upright(
    points: Float[Tensor, "F J 3"],
    valid: Bool[Tensor, "F J"],
    camera_from_world: Rigid,
    skeleton: Skeleton,
    height_m: float,
) -> tuple[Float[Tensor, "F J 3"], Rigid]:
    """Labels and cameras in metres with Z up, by the rule of this module.

    CalibrationError if no sample has both joints of a bone, or an ankle and a shoulder.
    """
    hips, knees, ankles, shoulders = (
        skeleton.indices(f"left_{joint}", f"right_{joint}") for joint in ("hip", "knee", "ankle", "shoulder")
    )
    legs = [
        (points[:, a] - points[:, b]).norm(dim=-1).masked_fill(~(valid[:, a] & valid[:, b]), torch.nan)
        for a, b in ((hips, knees), (knees, ankles))
    ]
    length = torch.stack([leg.flatten().nanmedian() for leg in legs]).sum()
    rise = (points[:, shoulders] - points[:, ankles]).masked_fill(
        ~(valid[:, shoulders] & valid[:, ankles])[..., None], torch.nan
    )
    up = rise.flatten(0, 1).nanmean(dim=0)
    if not torch.isfinite(length) or not torch.isfinite(up).all():
        raise CalibrationError("the labels show no leg from hip to ankle, or no body from ankles to shoulders.")
    z = up / up.norm()
    across = torch.linalg.cross(z, torch.eye(3).to(z)[z.abs().argmin()])
    x = across / across.norm()
    turn = torch.stack([x, torch.linalg.cross(z, x), z])
    scale = LEG_SHARE * height_m / length
    moved = Rigid(camera_from_world.rotation @ turn.T, scale * camera_from_world.translation)
    return torch.where(valid[..., None], scale * points @ turn.T, torch.zeros_like(points)), moved


@lru_cache(maxsize=1)
def _teacher(uri: str) -> SavedModel | JointNetwork:
    """Opened once per worker, not once per shard."""
    if exists(join(uri, DESCRIPTION)):
        model = open_model(uri)
        if (method := model.config.method) in (*LIFTING, BOTTOM_UP):
            raise ConfigError(
                f"a teacher finds the 2D joints of a person in a crop, and {uri} is a network of {method}."
            )
        return model
    card = read_card(uri)
    joint_set(card)
    return JointNetwork(card, DetectorConfig(threads=1, precision="float32"))


def _skeleton(teacher: SavedModel | JointNetwork) -> Skeleton:
    return SKELETONS[teacher.rule.skeleton] if isinstance(teacher, SavedModel) else teacher.skeleton


def _seen(
    teacher: SavedModel | JointNetwork, sample: Sample, min_confidence: float
) -> tuple[Float[Tensor, "V J 2"], Float[Tensor, "V J"]]:
    """2D joints on the plane z = 1 of each view, and their weights."""
    by_network = isinstance(teacher, SavedModel)
    plane, confidence = _by_network(teacher, sample) if by_network else _by_detector(teacher, sample)
    kept = (confidence >= min_confidence) & (confidence > 0) & torch.isfinite(plane).all(dim=-1)
    return torch.where(kept[..., None], plane, 0.0), torch.where(kept, confidence, 0.0)


def _by_network(model: SavedModel, sample: Sample) -> tuple[Float[Tensor, "V J 2"], Float[Tensor, "V J"]]:
    rule = model.rule
    view = CropView(skeleton=SKELETONS[rule.skeleton], crop=rule.crop, views=len(sample.rig))
    arrays = sample_arrays(sample, view, np.random.default_rng(0))
    crops, projections, present = (torch.from_numpy(arrays[k]) for k in ("crops", "projections", "present"))
    axis = 1 if rule.one_view else 0
    if not rule.one_view:
        rule.require_views(len(sample.rig))
    with torch.inference_mode():
        answer = model.network(*(values.unsqueeze(axis) for values in (crops, projections, present)))
    pixels, confidence = (values.squeeze(axis) for values in (answer.joints_2d, answer.confidence_2d))
    somewhere = torch.eye(3, 4).to(projections)
    back = torch.linalg.inv(pinhole_of(torch.where(present[:, None, None], projections, somewhere))[0].double())
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1).double()
    return (homogeneous @ back.transpose(-1, -2))[..., :2], (confidence * present[:, None]).double()


def _by_detector(network: JointNetwork, sample: Sample) -> tuple[Float[Tensor, "V J 2"], Float[Tensor, "V J"]]:
    present: np.ndarray = np.all(np.isfinite(sample.box), axis=-1)
    boxes = np.where(present[:, None], sample.box, [0.0, 0.0, 1.0, 1.0])
    found = network([decoded(image, sample) for image in sample.images], usual_box(boxes))
    rig = sample.rig.to(torch.float64)
    ideal, exists_there = rig.undistorted(torch.from_numpy(found.xy).double())
    plane = (ideal - rig.centre[:, None]) / rig.focal[:, None]
    return plane, torch.from_numpy(found.confidence * present[:, None]).double() * exists_there
