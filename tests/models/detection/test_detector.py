"""The detector around two small networks that are known exactly.

The box network answers with fixed boxes; the joint network puts all its joints on the brightest column and row of the
first colour channel. So a coloured dot in an image is a person's joint, and its place is known.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.detection.detector import TopDownDetector, detector_digest, load_detector, scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.skeleton import COCO17, SKELETONS, Skeleton

NUM_JOINTS = len(COCO17.joints)
# left, top, right, bottom, score in the letterboxed image of 64 x 64; images below are 128 x 128, so twice this.
DETECTIONS = np.array(
    [[4, 4, 28, 36, 0.7], [30, 20, 60, 60, 0.9], [0, 40, 20, 63, 0.4], [40, 0, 60, 16, 0.1]], dtype=np.float32
)


def box_network() -> bytes:
    """1 x 3 x 64 x 64 -> the fixed detections and their labels."""
    nodes = [
        helper.make_node("Constant", [], ["dets"], value=numpy_helper.from_array(DETECTIONS[None])),
        helper.make_node("Constant", [], ["labels"], value=numpy_helper.from_array(np.zeros((1, 4), dtype=np.int64))),
    ]
    outputs = [
        helper.make_tensor_value_info("dets", TensorProto.FLOAT, [1, 4, 5]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 4]),
    ]
    return network(nodes, [1, 3, 64, 64], outputs, [])


def joint_network() -> bytes:
    """B x 3 x 64 x 48 -> the maxima of the first channel over rows and over columns, for every joint."""
    constants = {
        "first": np.array(0),
        "rows": np.array([1]),
        "columns": np.array([2]),
        "joint_axis": np.array([1]),
        "joints": np.array([1, NUM_JOINTS, 1]),
    }
    nodes = [helper.make_node("Gather", ["input", "first"], ["red"], axis=1)]
    for name, axis in (("simcc_x", "rows"), ("simcc_y", "columns")):
        nodes += [
            helper.make_node("ReduceMax", ["red", axis], [f"{name}_max"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{name}_max", "joint_axis"], [f"{name}_one"]),
            helper.make_node("Expand", [f"{name}_one", "joints"], [name]),
        ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", NUM_JOINTS, size])
        for name, size in (("simcc_x", 48), ("simcc_y", 64))
    ]
    initializers = [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()]
    return network(nodes, ["batch", 3, 64, 48], outputs, initializers)


def network(nodes: list, shape: list, outputs: list, initializers: list) -> bytes:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


CARD = """
name = "{name}"
file = "{name}.onnx"
sha256 = "{digest}"
input_size = {size}
colour_order = "rgb"
mean = [0.0, 0.0, 0.0]
std = [255.0, 255.0, 255.0]
{more}
[licence]
code = "own"
weights = "own"
training_data = "none"
"""


class OwnDetector:
    """Finds nobody."""

    skeleton, digest, chunk_frames = COCO17, "own", 1

    def __init__(self, config: DetectorConfig) -> None:
        self.config = config

    def __call__(self, views) -> list[list[People]]:
        return [[] for _ in views]


@pytest.fixture
def config(tmp_path, monkeypatch) -> DetectorConfig:
    """The detector's own settings, but with the small networks."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", str(tmp_path))
    parts = {
        "boxes": (box_network(), [64, 64], ""),
        "joints": (joint_network(), [48, 64], 'skeleton = "coco17"\nbins_per_pixel = 1.0'),
    }
    for name, (content, size, more) in parts.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (tmp_path / f"{name}.toml").write_text(CARD.format(name=name, digest=digest, size=size, more=more))
    return DetectorConfig(person_card=str(tmp_path / "boxes.toml"), joint_card=str(tmp_path / "joints.toml"))


@pytest.fixture
def edit_card(config) -> Callable[[str, str], None]:
    """Change a line of the joint network's card."""

    def edit(before: str, after: str) -> None:
        with open(config.joint_card) as file:
            text = file.read()
        assert before in text
        with open(config.joint_card, "w") as file:
            file.write(text.replace(before, after))

    return edit


def dotted(dots: Sequence[tuple[int, int]], channel: int = 0) -> np.ndarray:
    """128 x 128, black, with 3 x 3 dots of one colour."""
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    for x, y in dots:
        image[y - 1 : y + 2, x - 1 : x + 2, channel] = 255
    return image


def clip(*dots: tuple[int, int]) -> np.ndarray:
    """One frame a dot."""
    return np.stack([dotted([dot]) for dot in dots])


def same(a: list[list[People]], b: list[list[People]]) -> bool:
    """Whether two answers agree to the last bit."""
    arrays = [[(p.box, p.score, p.xy, p.confidence) for frames in views for p in frames] for views in (a, b)]
    pairs = zip(*arrays, strict=True)
    return all(np.array_equal(x, y) for left, right in pairs for x, y in zip(left, right, strict=True))


@pytest.fixture
def views() -> list[np.ndarray]:
    """Two views of 3 and 5 frames of noise."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (n, 128, 128, 3), dtype=np.uint8) for n in (3, 5)]


def test_a_joint_is_found_in_its_own_view_and_frame_and_place(config):
    dots = {0: [(80, 70), (90, 80), (100, 100)], 1: [(70, 90), (85, 60)]}
    people = load_detector(config)([clip(*dots[0]), clip(*dots[1])])
    assert [len(frames) for frames in people] == [3, 2]
    for view, places in dots.items():
        for found, place in zip(people[view], places, strict=True):
            assert np.abs(found.xy[0] - place).max() < 1.5
            assert np.allclose(found.confidence[0], 1, atol=0.2)
            assert found.xy.shape == (3, NUM_JOINTS, 2)


def test_boxes_are_reported_in_pixels_of_the_image_best_first(config):
    (people,) = load_detector(config)([clip((80, 70))])[0]
    assert np.allclose(people.score, [0.9, 0.7, 0.4])
    expected = np.array([[60, 40, 120, 120], [8, 8, 56, 72], [0, 80, 40, 126]]) + 0.5
    assert np.allclose(people.box, expected, atol=1e-4)


def test_the_settings_bound_the_number_of_people_and_how_unsure_a_box_may_be(config):
    frames = [clip((80, 70), (80, 70))]
    counts = [
        len(load_detector(replace(config, **change))(frames)[0][1].score)
        for change in ({"max_boxes": 1}, {"max_boxes": 2}, {"min_box_score": 0.05}, {"min_box_score": 0.95})
    ]
    assert counts == [1, 2, 4, 0]


def test_the_colour_order_of_the_card_decides_which_channel_comes_first(config, edit_card):
    red, blue = (dotted([(80, 70)], channel)[None] for channel in (0, 2))
    as_rgb = load_detector(config)
    edit_card('colour_order = "rgb"', 'colour_order = "bgr"')
    as_bgr = load_detector(config)
    for detector, seen, unseen in ((as_rgb, red, blue), (as_bgr, blue, red)):
        assert detector([seen])[0][0].confidence[0].min() > 0.8
        assert detector([unseen])[0][0].confidence[0].max() == 0
    assert as_rgb.digest != as_bgr.digest


def test_the_scale_of_the_card_is_the_detectors_and_a_changed_one_makes_other_2d_joints(config):
    # Fails if the digest does not cover the scale: a resumed run would mix likelihoods of two scales.
    as_stated = load_detector(config)
    with open(config.joint_card, "a") as file:
        file.write("[confidence]\nlikelihood = [[0.0, 0.0], [0.5, 0.9]]\nborder_odds = 0.5\n")
    scaled = load_detector(config)
    assert scale_of(as_stated) == AS_STATED and scale_of(scaled).likelihood == ((0.0, 0.0), (0.5, 0.9))
    assert len({as_stated.digest, scaled.digest, detector_digest(replace(config, max_boxes=1))}) == 3
    assert detector_digest(config) == scaled.digest


def test_a_detector_of_your_own_states_its_scale_or_none(config, monkeypatch):
    # Fails if the digest of a detector that states a scale is its own alone.
    own = replace(config, detector=f"{__name__}:OwnDetector")
    before = detector_digest(own)
    assert scale_of(load_detector(own)) == AS_STATED and before == "own"
    monkeypatch.setattr(OwnDetector, "confidence_scale", ConfidenceScale(border_odds=0.5), raising=False)
    assert scale_of(load_detector(own)).border_odds == 0.5 and detector_digest(own) != before


def test_views_and_frames_together_equal_one_by_one(config, views):
    detector = load_detector(config)
    together = detector(views)
    assert same(together, [detector([frames])[0] for frames in views])
    assert same(together, detector(views))
    # The small box network sees the same boxes everywhere, so that frames may be cut apart too.
    assert same(together, [[detector([frame[None]])[0][0] for frame in frames] for frames in views])


@pytest.mark.parametrize("batch_size", [1, 5, 7, 100])
def test_the_batch_size_does_not_change_results_nor_digest(config, views, batch_size):
    usual, other = load_detector(config), load_detector(replace(config, batch_size=batch_size))
    assert same(usual(views), other(views))
    assert usual.digest == other.digest


def test_views_may_be_empty_and_images_may_show_nobody(config):
    detector = load_detector(replace(config, min_box_score=0.95))
    nobody = detector([np.zeros((0, 128, 128, 3), dtype=np.uint8), np.zeros((2, 96, 128, 3), dtype=np.uint8)])
    assert [len(frames) for frames in nobody] == [0, 2]
    assert nobody[1][0].xy.shape == (0, NUM_JOINTS, 2) and nobody[1][0].box.shape == (0, 4)
    assert detector([]) == []


@pytest.mark.parametrize(
    "change", [{"max_boxes": 2}, {"chunk_frames": 4}, {"min_box_score": 0.5}, {"threads": 2}, {"device": "cpu"}]
)
def test_the_digest_tells_settings_that_change_results(config, change):
    # The plan's fingerprint has the frames between looks, which depend on the frame rate.
    changes_results = not change.keys() & {"threads", "device", "chunk_frames"}
    assert (load_detector(replace(config, **change)).digest != load_detector(config).digest) == changes_results


def test_other_weights_have_another_digest(config, edit_card, tmp_path):
    before = load_detector(config).digest
    content = (tmp_path / "joints.onnx").read_bytes()
    model = onnx.load_from_string(content)
    model.doc_string = "the same network, another file"
    (tmp_path / "joints.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="mvpose models fetch"):
        load_detector(config)
    old, new = (hashlib.sha256(data).hexdigest() for data in (content, model.SerializeToString()))
    edit_card(old, new)
    assert load_detector(config).digest != before


def test_the_digest_can_be_computed_without_weights(config, monkeypatch, tmp_path):
    loaded = load_detector(config).digest
    monkeypatch.setenv("MVPOSE_WEIGHTS", str(tmp_path / "nothing"))
    assert detector_digest(config) == loaded
    assert detector_digest(replace(config, detector=f"{__name__}:BrightestPixel")) == "brightest"


def test_the_device_in_use_is_said(config):
    detector = TopDownDetector(config)
    assert detector.device == "cpu"


def test_a_device_that_is_not_there_is_refused(config):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")
    with pytest.raises(ConfigError, match=r"device cuda was requested.*onnxruntime-gpu"):
        load_detector(replace(config, device="cuda"))


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('skeleton = "coco17"', 'skeleton = "halpe26"', "gives 17 joints, but skeleton halpe26"),
        ('skeleton = "coco17"', 'skeleton = "octopus"', "must name a skeleton"),
        ('skeleton = "coco17"', "", "must name a skeleton"),
        ("bins_per_pixel = 1.0", "", "bins_per_pixel"),
    ],
)
def test_a_card_that_does_not_fit_its_part_is_refused(config, edit_card, before, after, complaint):
    edit_card(before, after)
    with pytest.raises(ConfigError, match=complaint):
        load_detector(config)([clip((80, 70))])


@pytest.mark.parametrize(
    "change",
    [{"chunk_frames": 0}, {"max_boxes": 0}, {"batch_size": -1}, {"min_box_score": 1.5}, {"look_interval_s": 0.0}],
)
def test_settings_out_of_range_are_refused_by_name(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        DetectorConfig(**change)


class BrightestPixel:
    """A detector of a user's own: one person, whose every joint is the brightest pixel."""

    skeleton: Skeleton = SKELETONS["coco17"]
    digest = "brightest"

    def __init__(self, config: DetectorConfig) -> None:
        self.chunk_frames = config.chunk_frames

    def __call__(self, views: Sequence[np.ndarray]) -> list[list[People]]:
        return [[self._person(image) for image in frames] for frames in views]

    def _person(self, image: np.ndarray) -> People:
        y, x = np.unravel_index(image.sum(axis=-1).argmax(), image.shape[:2])
        box = np.array([[x - 1, y - 1, x + 1, y + 1]], dtype=np.float32)
        xy = np.tile(np.float32([x, y]), (1, NUM_JOINTS, 1))
        return People(box, np.ones(1, np.float32), xy, np.ones((1, NUM_JOINTS), np.float32))


def test_a_detector_of_ones_own_is_named_by_its_class():
    detector = load_detector(DetectorConfig(detector=f"{__name__}:BrightestPixel", chunk_frames=5))
    assert detector.chunk_frames == 5
    (people,) = detector([clip((40, 50))])[0]
    assert np.abs(people.xy[0] - [40, 50]).max() <= 1


class NotADetector:
    def __init__(self, config: DetectorConfig) -> None:
        self.skeleton = COCO17


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no.such.package:Class", "No module named"),
        ("mvpose.models.detection.detector:Nobody", "Nobody"),
        ("mvpose.models.detection.detector", "does not define it"),
        ("TopDownDetector", "package.module:name"),
        ("", "package.module:name"),
        (f"{__name__}:NotADetector", "lacks one of skeleton, digest"),
    ],
)
def test_a_name_without_a_detector_behind_it_is_refused(name, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_detector(DetectorConfig(detector=name))
