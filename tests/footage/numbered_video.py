"""Videos in which every frame carries its number as a pattern of blocks that survives compression."""

import functools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 128, 96
BITS, BLOCK = 12, 32


def numbered_image(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Bit i is the i-th block of 32 x 32, row by row, dark or light; the tint differs from frame to frame."""
    bits = (number >> np.arange(BITS)) & 1
    image = np.full((height, width), 40, int)
    image[:HEIGHT, :WIDTH] += 170 * np.kron(bits.reshape(3, 4), np.ones((BLOCK, BLOCK), int))
    tint = np.array([number % 7, -(number % 5), number % 3])
    return (image[..., None] + 4 * tint).clip(0, 255).astype(np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number that an image carries."""
    middle = image[BLOCK // 2 : HEIGHT : BLOCK, BLOCK // 2 : WIDTH : BLOCK].mean(axis=-1)
    return int(((middle.ravel() > 125) << np.arange(BITS)).sum())


def numbers_of(chunks: Iterable[np.ndarray]) -> list[int]:
    """The numbers of all images in chunks of frames."""
    return [number_of(image) for chunk in chunks for image in chunk]


def opencv_images(uri: str) -> Iterable[np.ndarray]:
    """All images of a file as OpenCV reads them from the first to the last, in RGB."""
    capture = cv2.VideoCapture(uri)
    while (read := capture.read())[0]:
        yield read[1][..., ::-1]


def write_numbered(
    uri: str,
    num_frames: int = 60,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: tuple[float, bool] | None = None,
    pix_fmt: str = "yuv420p",
) -> str:
    """Write frames 0 to num_frames - 1 at 30 frames/s, or at the given times in 1/90000 s; returns the URI."""
    with av.open(uri, "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.time_base = Fraction(1, 90000) if ticks else Fraction(1, 30)
        if rotation:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")
            frame.time_base, frame.pts = stream.codec_context.time_base, ticks[number] if ticks else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return uri


def cut_without_decoding(source: str, target: str, first_packet: int, shown_from: int | None = None) -> str:
    """Copy the packets from the first key at or after `first_packet`; an edit list hides frames before `shown_from`."""
    with av.open(source) as reader, av.open(target, "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        taken: list[Any] = [packet for packet in reader.demux(stream) if packet.size][first_packet:]
        while not taken[0].is_keyframe:
            taken.pop(0)
        zero = taken[0].pts if shown_from is None else shown_from * int(1 / (taken[0].time_base * 30))
        for packet in taken:
            packet.stream = copy
            packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
            writer.mux(packet)
    return target


def _x264(**options: object) -> dict[str, str]:
    return {"x264-params": ":".join(f"{key.replace('_', '-')}={value}" for key, value in options.items())}


def _x265(**options: object) -> dict[str, str]:
    params = {"keyint": 20, "min_keyint": 20, "scenecut": 0, "log_level": 0} | options
    return {"x265-params": ":".join(f"{key.replace('_', '-')}={value}" for key, value in params.items())}


B_FRAMES = _x264(keyint=20, min_keyint=20, scenecut=0, bframes=3, b_adapt=0, b_pyramid="strict")
OPEN_GOP = _x264(keyint=20, min_keyint=20, scenecut=0, bframes=3, b_adapt=0, open_gop=1)
IRREGULAR = np.cumsum(np.random.default_rng(0).integers(1000, 9000, 60)).tolist()

_PLAIN: dict[str, Callable[[str], str]] = {
    "b_frames.mp4": functools.partial(write_numbered, options=B_FRAMES),
    "one_group.mp4": functools.partial(write_numbered, options=_x264(keyint=250)),
    "open_gop.mp4": functools.partial(write_numbered, options=OPEN_GOP),
    "open_gop.mkv": functools.partial(write_numbered, options=OPEN_GOP),
    "open_gop.ts": functools.partial(write_numbered, options=OPEN_GOP),
    "open_gop.flv": functools.partial(write_numbered, options=OPEN_GOP),
    "irregular.mp4": functools.partial(write_numbered, options=B_FRAMES, ticks=IRREGULAR),
    "irregular.mkv": functools.partial(write_numbered, options=B_FRAMES, ticks=IRREGULAR),
    "fragmented.mp4": functools.partial(
        write_numbered, options=OPEN_GOP, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "index_first.mp4": functools.partial(write_numbered, options=B_FRAMES, container_options={"movflags": "faststart"}),
    "hevc_open_gop.mp4": functools.partial(
        write_numbered, codec="libx265", options=_x265(bframes=3, b_adapt=0, open_gop=1)
    ),
    "hevc_radl.mp4": functools.partial(write_numbered, codec="libx265", options=_x265(bframes=4, open_gop=0, radl=2)),
    "vp9.mp4": functools.partial(
        write_numbered, codec="libvpx-vp9", options={"g": "20", "deadline": "realtime", "cpu-used": "8"}
    ),
    "vp9_alt_ref.webm": functools.partial(
        write_numbered, codec="libvpx-vp9", options={"g": "20", "lag-in-frames": "16", "cpu-used": "8"}
    ),
    "motion_jpeg.avi": functools.partial(write_numbered, codec="mjpeg", pix_fmt="yuvj420p"),
    "mpeg2.mpg": functools.partial(write_numbered, codec="mpeg2video", options={"g": "12", "bf": "2"}),
    "mpeg4.mov": functools.partial(write_numbered, codec="mpeg4", options={"g": "12", "bf": "2"}),
}
_CUTS = {
    "cut_b_frames.mp4": ("b_frames.mp4", 10, None),
    "cut_open_gop.mp4": ("open_gop.mp4", 10, None),
    "cut_open_gop.ts": ("open_gop.ts", 10, None),
    "cut_b_frames.mkv": ("b_frames.mp4", 10, None),
    "cut_hevc_open_gop.mp4": ("hevc_open_gop.mp4", 10, None),
    "cut_hevc_open_gop.ts": ("hevc_open_gop.mp4", 10, None),
    "cut_hevc_radl.mp4": ("hevc_radl.mp4", 10, None),
    "cut_hevc_radl.ts": ("hevc_radl.mp4", 10, None),
    "edit_list.mp4": ("b_frames.mp4", 10, 27),
    "edit_list_open_gop.mp4": ("open_gop.mp4", 10, 27),
}
NAMES = [*_PLAIN, *_CUTS]


def write_named(folder: str, name: str) -> str:
    """Write one of NAMES in a folder."""
    if name in _PLAIN:
        return _PLAIN[name](f"{folder}/{name}")
    source, first_packet, shown_from = _CUTS[name]
    return cut_without_decoding(write_named(folder, source), f"{folder}/{name}", first_packet, shown_from)
