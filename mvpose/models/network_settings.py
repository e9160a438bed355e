"""Settings of the networks: method, backbone, sizes and training objective. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mvpose.accelerator import Device, compute_device, require_gpus
from mvpose.config import nearest
from mvpose.errors import ConfigError
from mvpose.geometry import Aggregation, DltMethod
from mvpose.models.backbone_settings import CSPNeXtBackbone, ResNetBackbone
from mvpose.models.field_settings import FieldsConfig
from mvpose.skeleton import SKELETONS

STRIDE = 32
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of RGB in 0..1. Mean and deviation are the ImageNet statistics used by pretrained backbones."""


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """Region and size of the crop that a network receives for a person."""

    about: Literal["joints", "image"] = "joints"
    """Centre of the crop: the box around the person's 2D joints in that view, after undistortion; or the image."""
    size: tuple[int, int]
    """(width, height) in pixels."""
    margin: float
    """Ratio of the crop's side to the box's, along the side that needs the larger crop."""

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise ConfigError(f"the crop margin is {self.margin}; it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Decoding of heatmaps to points in the image and in the world."""

    kind: Literal["soft_argmax", "centre_of_mass", "argmax", "peak"] = "soft_argmax"
    """`peak`: centre of mass about the highest pixel, for maps trained on Gaussian targets."""
    sharpness: float = 1.0
    """Inverse temperature of the softmax: 1 for maps trained through their points, 100 for maps trained on targets."""
    radius: float = 2.0
    """Radius around the point, in pixels of the map, within which probability counts towards its confidence."""
    solver: DltMethod = DltMethod.SII
    """Triangulation solver; shifted iterations match the paper."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Sizes of Baseline, Fusion and Canonical Fusion."""

    views: int = 4
    """Number of views for concatenation. Pooling and attention accept any number."""
    fusion: Literal["concatenation", "pooling", "attention"] = "concatenation"
    points: int = 100
    """Latent points per pixel: 3 channels each in a view, 4 in the canonical frame."""
    keep_own_view: bool = False
    """Add a view's own features to the fused ones (not in the paper)."""
    head_width: int = 256
    decoding: Decoding = field(default_factory=Decoding)
    extent: float = 2.0
    """Length in metres of a crop's longer side at the person; sets the scale of the canonical frame."""


@dataclass(frozen=True, kw_only=True)
class TokenFusionConfig:
    """Sizes of the fusion of joint tokens."""

    points: int = 64
    """Latent points per token: 3 numbers each in a view, 4 in the canonical frame."""
    fusion: Literal["pooling", "attention"] = "attention"
    sharpness: float = 20.0
    """Inverse temperature of the softmax over scores in training. Scores of a certain joint peak at about 1."""
    extent: float = 2.0
    """Metres that a crop's longer side spans at the person."""
    solver: DltMethod = DltMethod.SII


@dataclass(frozen=True, kw_only=True)
class PictorialConfig:
    """Search for a person in the heatmaps of all views (pictorial structures); the defaults are the paper's."""

    side_m: float = 2.0
    """Side of the cube about the root that contains the person."""
    bins: int = 16
    """Bins per side of the first grid."""
    rounds: int = 10
    """Number of refinements of RPSM on 2 x 2 x 2 grids; PSM has none."""
    tolerance_m: float = 0.150
    """Maximum deviation of a limb from its length."""
    softness_m: float | None = None
    """None: every length within the tolerance is equally good (the paper). Otherwise the sigma of a Gaussian prior."""

    def __post_init__(self) -> None:
        if self.bins < 2 or self.rounds < 0 or min(self.side_m, self.tolerance_m, self.softness_m or 1.0) <= 0:
            raise ValueError(f"{self}: bins must be >= 2, rounds >= 0, and lengths in metres above 0")


Solver = Literal["dlt", "psm", "rpsm"]
"""3D joints from heatmaps: triangulation of each joint, pictorial structures, or recursive pictorial structures."""


@dataclass(frozen=True, kw_only=True)
class CrossViewConfig:
    """Sizes of cross-view fusion; the defaults are the paper's, except that points are found between pixels."""

    views: int = 4
    """Number of views of `dense`, which must always be the same cameras in the same order. Others take any number."""
    fusion: Literal["dense", "sum", "max", "rays"] = "dense"
    """`dense`: a free matrix per ordered pair of views. `sum`, `max`: along epipolar lines, without parameters; the
    paper compares them. `rays`: learned weights along rays, for any rig (not in the paper)."""
    head_width: int = 256
    decoding: Decoding = field(default_factory=lambda: Decoding(kind="peak", sharpness=100.0, solver=DltMethod.SVD))
    extent: float = 2.0
    """Metres that a crop's longer side spans at the person."""
    solver: Solver = "rpsm"
    """3D joints of the trained network. Training and its validation triangulate."""
    pictorial: PictorialConfig = field(default_factory=PictorialConfig)


@dataclass(frozen=True, kw_only=True)
class AlgebraicConfig:
    """Sizes of the algebraic method; the defaults are those of the paper and its code."""

    head_width: int = 256
    confidence_widths: tuple[int, int] = (512, 256)
    floor: float = 1e-5
    """Added to the weights of the views, which sum to 1. A view's share in the squared system is its weight squared, so
    0.02 already silences an outlier (1 : 2500), and leaves an answer to a joint that one view alone trusts."""
    decoding: Decoding = field(default_factory=lambda: Decoding(sharpness=100.0, solver=DltMethod.SVD))
    extent: float = 2.0
    """Metres that a crop's longer side spans at the person."""


@dataclass(frozen=True, kw_only=True)
class RansacConfig:
    """Thresholds of the paper's code as shares of the crop's longer side (of 384 pixels there).

    Two steps differ from it: consensus tries view pairs spread over the views with the highest weights, up to 10, and
    not 10 random ones; and Huber's loss is minimised by reweighting, and not by a trust region.
    """

    threshold: float = 30 / 384
    """Maximum distance of an inlier view from the projected point."""
    huber: float = 2 / 384
    """Threshold of the refinement's Huber loss: 1, SciPy's default, on half the distance."""
    rounds: int = 10
    """Reweighting iterations of the refinement."""


@dataclass(frozen=True, kw_only=True)
class VolumetricConfig:
    """Sizes of the volumetric method; the defaults are the paper's."""

    side: float = 2.5
    """Side of the cube in metres."""
    voxels: int = 64
    """Voxels per side; a multiple of 2^(levels of the V2V network)."""
    channels: int = 32
    aggregation: Aggregation = "softmax"
    widths: tuple[int, ...] = (32, 64, 128, 128, 128, 128)
    sharpness: float = 1.0
    root: tuple[int, ...] = (0,)
    """Joints whose mean is the cube's centre: the pelvis, or both hips."""
    turn_in_training: bool = True
    """Rotate the cube by a random angle about the vertical in training."""
    radius: float = 0.1
    """Radius in metres around a joint within which probability counts towards its confidence."""
    algebraic: AlgebraicConfig = field(default_factory=AlgebraicConfig)


@dataclass(frozen=True, kw_only=True)
class MonocularConfig:
    """Sizes of a network that takes one image; the defaults are EpipolarPose's."""

    head: Literal["integral", "regression", "two_and_half_d", "volume", "ray_volume"] = "integral"
    """Volumes read by their mean; one linear layer; a position and a depth map for each joint; volumes of a 3D decoder,
    from features that are reshaped (`volume`) or carried along the rays of the inverse intrinsics (`ray_volume`)."""
    width: int = 256
    """Channels of the head's deconvolutions, or of its volumes."""
    depth: int = 64
    """Voxels along z of the head's volumes; half of them in a 3D decoder, which doubles them."""
    sharpness: float = 1.0
    """Inverse temperature of the softmax over maps and volumes. Networks that start from random weights and train for
    minutes start faster with more, such as 20."""
    root: tuple[int, ...] = (0,)
    """Joints whose mean is the root: the pelvis, or both hips."""
    span_m: float = 2.0
    """Metres that a crop spans at the person, from which training starts (`objective.span`); the paper's box."""
    refinement: int = 0
    """Width of a refinement unit after the network (the paper's has 1024); 0: none. It trains alone, from an `initial`
    network without one, whose weights are frozen."""
    dropout: float = 0.5
    """Of the refinement unit."""


@dataclass(frozen=True, kw_only=True)
class LifterConfig:
    """Sizes of a lifter; the defaults are those of Martinez et al. 2017."""

    width: int = 1024
    blocks: int = 2
    """Residual blocks, or pairs of attention among joints and among frames."""
    dropout: float = 0.5
    heads: int = 4
    """Heads of the attention."""
    window: int = 27
    """Frames that the transformer sees at once. The residual network sees one."""
    fps: float = 25.0
    """Frames per second of the window; of faster footage, every n-th frame is taken."""

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.heads, self.window) < 1 or not self.fps > 0:
            raise ConfigError("lifter: width, blocks, heads and window must be at least 1, fps above 0.")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """A multi-view network. Only the settings of the selected method are used."""

    skeleton: str = "human36m17"
    size: tuple[int, int] = (256, 256)
    """(width, height) of the crops in pixels; multiples of 32."""
    backbone: ResNetBackbone | CSPNeXtBackbone = field(default_factory=ResNetBackbone)

    @property
    def fixed_views(self) -> int | None:
        """The only number of views that the network takes; None if it takes any number."""
        return None

    @property
    def solver(self) -> Solver:
        """The 3D step of the trained network."""
        return "dlt"

    def __post_init__(self) -> None:
        if self.skeleton not in SKELETONS:
            raise ConfigError(f"no skeleton is named {self.skeleton!r} ({nearest(self.skeleton, SKELETONS)})")
        if any(side < STRIDE or side % STRIDE for side in self.size):
            raise ConfigError(f"the sides of crops must be multiples of {STRIDE} pixels, not {self.size}")


@dataclass(frozen=True, kw_only=True)
class FusionMethod(MethodConfig):
    """Baseline, Fusion or Canonical Fusion (Remelli et al. 2020)."""

    method: Literal["canonical_fusion", "fusion", "baseline"] = "canonical_fusion"
    fusion: FusionConfig = field(default_factory=FusionConfig)

    @property
    def fixed_views(self) -> int | None:
        """The number of views that are concatenated."""
        return self.fusion.views if self.method != "baseline" and self.fusion.fusion == "concatenation" else None


@dataclass(frozen=True, kw_only=True)
class TokenMethod(MethodConfig):
    """Fusion of RTMPose's joint tokens. Needs backbone `cspnext`, skeleton `halpe26` and crops of 192 x 256."""

    method: Literal["canonical_tokens"] = "canonical_tokens"
    tokens: TokenFusionConfig = field(default_factory=TokenFusionConfig)


@dataclass(frozen=True, kw_only=True)
class RansacMethod(MethodConfig):
    """RANSAC over the per-view network of a Baseline with the sizes in `fusion`."""

    method: Literal["ransac"] = "ransac"
    fusion: FusionConfig = field(default_factory=FusionConfig)
    ransac: RansacConfig = field(default_factory=RansacConfig)


@dataclass(frozen=True, kw_only=True)
class AlgebraicMethod(MethodConfig):
    """Algebraic triangulation (Iskakov et al. 2019)."""

    method: Literal["algebraic"] = "algebraic"
    algebraic: AlgebraicConfig = field(default_factory=AlgebraicConfig)


@dataclass(frozen=True, kw_only=True)
class VolumetricMethod(MethodConfig):
    """Volumetric triangulation (Iskakov et al. 2019)."""

    method: Literal["volumetric"] = "volumetric"
    volumetric: VolumetricConfig = field(default_factory=VolumetricConfig)


@dataclass(frozen=True, kw_only=True)
class CrossViewMethod(MethodConfig):
    """Cross-view fusion of heatmaps, and recursive pictorial structures (Qiu et al. 2019)."""

    method: Literal["cross_view_fusion"] = "cross_view_fusion"
    cross_view: CrossViewConfig = field(default_factory=CrossViewConfig)

    @property
    def fixed_views(self) -> int | None:
        """The number of views of the dense layer."""
        return self.cross_view.views if self.cross_view.fusion == "dense" else None

    @property
    def solver(self) -> Solver:
        """The 3D step of the trained network."""
        return self.cross_view.solver


@dataclass(frozen=True, kw_only=True)
class MonocularMethod(MethodConfig):
    """A network that takes one image: integral pose and EpipolarPose, regression, 2.5D, volumes of a 3D decoder."""

    method: Literal["monocular"] = "monocular"
    monocular: MonocularConfig = field(default_factory=MonocularConfig)

    @property
    def fixed_views(self) -> int | None:
        """One."""
        return 1


@dataclass(frozen=True, kw_only=True)
class LiftingMethod(MethodConfig):
    """Lifting of the 2D joints of one camera, without images: backbone and crops are not used."""

    method: Literal["lifting_mlp", "lifting_transformer"] = "lifting_mlp"
    skeleton: str = "halpe20"
    lifter: LifterConfig = field(default_factory=LifterConfig)

    @property
    def fixed_views(self) -> int | None:
        """One."""
        return 1

    @property
    def window(self) -> int:
        """Frames that the network sees at once."""
        return 1 if self.method == "lifting_mlp" else self.lifter.window


@dataclass(frozen=True, kw_only=True)
class FieldsMethod(MethodConfig):
    """Part affinity fields (Cao et al. 2017): all people of whole images, bottom-up. `size` is that of the image."""

    method: Literal["affinity_fields"] = "affinity_fields"
    fields: FieldsConfig = field(default_factory=FieldsConfig)

    @property
    def fixed_views(self) -> int | None:
        """One."""
        return 1


@dataclass(frozen=True, kw_only=True)
class OwnMethod(MethodConfig):
    """A network of your own, built from a backbone, the number of joints and this config."""

    method: Literal["own"] = "own"
    network: str = ""
    """`package.module:Class`, an nn.Module with the call of `mvpose.models.multiview`."""


ImageMethod = (
    FusionMethod
    | TokenMethod
    | RansacMethod
    | AlgebraicMethod
    | VolumetricMethod
    | CrossViewMethod
    | MonocularMethod
    | OwnMethod
)
LIFTING = ("lifting_mlp", "lifting_transformer")
ONE_VIEW = (*LIFTING, MonocularMethod.method)
"""Methods that take one camera."""
BOTTOM_UP = "affinity_fields"
Method = ImageMethod | LiftingMethod | FieldsMethod


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Settings for evaluating a network."""

    gpus: float = 0.0
    """1: compute on this machine's GPU; 0: on the CPU."""
    batch_size: int = 16
    subset_seed: int = 0
    """Seed of the camera selection when fewer than all are used."""

    def __post_init__(self) -> None:
        require_gpus(self.gpus)

    @property
    def device(self) -> Device:
        """The device to compute on. ConfigError if a GPU is requested and there is none."""
        return compute_device(self.gpus, here=True)
