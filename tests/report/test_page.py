import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

from mvpose.errors import FailureReason
from mvpose.records import Clip, ClipFailure
from mvpose.report.page import Film, PageImage, Section, render_page
from mvpose.report.subject import CaptureReport
from mvpose.report.viewer import viewer_data
from tests.report.walkers import capture_report, empty

HOSTILE = "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"
VOID = {"meta", "input", "img"}


class _Reader(HTMLParser):
    """Tags, attributes and visible text of a page; fails on elements that do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def _section(subject: CaptureReport) -> Section:
    image = PageImage("A plot", "what it shows", "image/png", b"\x89PNG")
    film = Film("walk/overlay.mp4", b"\xff\xd8")
    return Section(subject, [image], [image], viewer_data(subject, 100), film)


def _hostile_page() -> str:
    subject = capture_report(capture_id=HOSTILE)
    subject = replace(
        subject,
        capture=replace(subject.capture, rig=replace(subject.capture.rig, names=(HOSTILE, "b", "c", "d"))),
        poses=replace(subject.poses, skeleton=replace(subject.poses.skeleton, name=HOSTILE)),
        figures={HOSTILE: 3.0},
    )
    failure = ClipFailure(Clip(HOSTILE, 0, 10), HOSTILE, FailureReason.NO_PERSON, HOSTILE)
    section = replace(_section(subject), trouble=HOSTILE)
    return render_page(HOSTILE, [subject], [section], [failure], {HOSTILE: HOSTILE})


def test_hostile_names_are_shown_and_never_become_markup():
    plain = _read(render_page("t", [capture_report()], [_section(capture_report())], [], {"a": 1}))
    hostile = _read(_hostile_page())
    assert hostile.text.count(HOSTILE) >= 9
    count = [[tag for tag, _ in reader.tags].count("script") for reader in (plain, hostile)]
    assert count[0] == count[1] == 2
    assert not any(name.startswith("on") or name == "style" for _, attrs in hostile.tags for name in attrs)
    assert all(tag != "img" or (attrs["src"] or "").startswith("data:") for tag, attrs in hostile.tags)


def test_the_page_refers_to_nothing_but_its_film():
    reader = _read(_hostile_page())
    targets = [attrs[name] or "" for _, attrs in reader.tags for name in ("src", "href", "poster") if name in attrs]
    outside = {target for target in targets if not target.startswith(("data:image/", "#"))}
    assert outside == {"walk/overlay.mp4"}
    plain = render_page("t", [capture_report()], [_section(capture_report())], [], {})
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<base", plain)


def test_only_the_pages_own_script_and_style_may_run():
    page = _hostile_page()
    policy = next(a["content"] or "" for tag, a in _read(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for element in ("style", "script"):
        content = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert len(content) == 1
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


def test_images_are_in_the_page_whole():
    reader = _read(render_page("t", [capture_report()], [_section(capture_report())], [], {}))
    data = [a["src"] or "" for tag, a in reader.tags if tag == "img"]
    assert [base64.b64decode(uri.partition("base64,")[2]) for uri in data] == [b"\x89PNG"] * 2


def test_the_table_tells_of_every_capture_and_links_those_shown():
    shown, other = capture_report(capture_id="shown"), empty(capture_report(capture_id="other"))
    page = render_page("t", [shown, other], [_section(shown)], [], {"captures": 2})
    reader = _read(page)
    assert [a["href"] for tag, a in reader.tags if tag == "a" and (a["href"] or "").startswith("#")] == [
        "#capture-shown"
    ]
    assert any(a.get("id") == "capture-shown" for _, a in reader.tags)
    assert "other" in reader.text and "100" in reader.text and "–" in reader.text and "nan" not in reader.text.lower()


def test_failures_are_listed_by_reason_with_their_clips():
    clip = Clip("walk", 300, 600)
    failures = [ClipFailure(clip, "poses", FailureReason.NO_PERSON, f"nobody {i}") for i in range(300)]
    failures.append(ClipFailure(clip, "keypoints", FailureReason.VIDEO_UNREADABLE, "cam02.mp4 is damaged"))
    text = _read(render_page("t", [], [], failures, {})).text
    assert "300 clips: no person." in text and "one clip: video unreadable." in text and "Copy it again" in text
    assert "300 to 599" in text and "nobody 0" in text and "nobody 250" not in text and "101 more are in" in text
    assert "None: every clip has a result." in _read(render_page("t", [], [], [], {})).text
