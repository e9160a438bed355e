"""FFmpeg is given footage alone: what names other files or sockets is refused, whatever its own name is."""

import os
import shutil
import struct

import av
import av.error
import pytest

from mvpose.archive.video import probe, read_frames
from mvpose.archive.video_container import unreadable
from mvpose.errors import VideoError
from tests.archive.numbered_video import write_numbered

SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile other.mp4\n"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def with_reference(data: bytes, path: str) -> bytes:
    """A QuickTime file whose samples are said to be in another file (a data reference of kind `alis`)."""
    name = os.path.basename(path).encode()
    alias = b"\0" * 10 + b"\1" + b"v".ljust(27, b"\0") + b"\0" * 12 + bytes([len(name)]) + name.ljust(63, b"\0")
    alias += b"\0" * 16 + struct.pack(">hh", 1, 1) + b"\0" * 16 + struct.pack(">HH", 2, len(path)) + path.encode()
    alias += b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    reference = struct.pack(">II", 0, 1) + box(b"alis", bytes(4) + alias)

    def replaced(content: bytes, kinds: list[bytes]) -> bytes:
        made, place = b"", 0
        while place < len(content):
            size, kind = struct.unpack_from(">I4s", content, place)
            body = content[place + 8 : place + size]
            if kind == kinds[0]:
                body = replaced(body, kinds[1:]) if kinds[1:] else reference
            made, place = made + box(kind, body), place + size
        return made

    return replaced(data, [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"])


@pytest.mark.parametrize("text", [CONCAT, HLS, SDP], ids=["concat", "playlist", "sdp"])
def test_a_list_of_other_places_under_the_name_of_a_video_is_refused(tmp_path, text):
    write_numbered(f"{tmp_path}/other.mp4")
    (tmp_path / "cam01.mp4").write_text(text)
    if text == CONCAT:
        with av.open(f"{tmp_path}/cam01.mp4") as followed:
            assert followed.format.name == "concat"
    with pytest.raises(VideoError, match=r"cam01\.mp4 cannot be read as a video"):
        probe(f"{tmp_path}/cam01.mp4", "cam01")


def test_the_same_list_on_s3_is_refused(tmp_path, s3):
    from tests.archive.test_locations import put

    put(f"{s3}/cam01.mp4", CONCAT.encode())
    with pytest.raises(VideoError, match="none of the formats that are read"):
        probe(f"{s3}/cam01.mp4", "cam01")


def test_a_quicktime_file_that_keeps_its_frames_in_another_is_refused(tmp_path):
    write_numbered(f"{tmp_path}/other.mov")
    data = (tmp_path / "other.mov").read_bytes()
    (tmp_path / "cam01.mov").write_bytes(with_reference(data, f"{tmp_path}/other.mov"))
    with pytest.raises(VideoError, match=r"cam01\.mov"):
        for _ in read_frames(video := probe(f"{tmp_path}/cam01.mov", "cam01"), 0, video.num_frames):
            pass


def test_a_pipe_or_a_device_is_refused_and_a_link_to_a_video_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    os.symlink("/dev/zero", tmp_path / "zero.mp4")
    for name in ("pipe.mp4", "zero.mp4"):
        with pytest.raises(VideoError, match=f"{name} cannot be read as a video: it is a pipe, socket or device"):
            probe(f"{tmp_path}/{name}", "cam01")
    write_numbered(f"{tmp_path}/cam.mp4")
    (tmp_path / "videos").mkdir()
    os.symlink("../cam.mp4", tmp_path / "videos" / "cam01.mp4")
    assert probe(f"{tmp_path}/videos/cam01.mp4", "cam01").num_frames > 0
    shutil.rmtree(tmp_path / "videos")


def test_a_video_that_may_not_be_read_is_not_said_to_be_damaged():
    for kind, is_damaged in ((av.error.PermissionError, False), (av.error.InvalidDataError, True)):
        assert ("copy it again" in str(unreadable("cam01.mp4", kind(1, "it was refused")))) is is_damaged
