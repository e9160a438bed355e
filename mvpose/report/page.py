"""Self-contained HTML pages: styles, script, plots and 3D data are embedded in the file.

Images are data URIs, so that the page can be mailed, opened from disk, or shown in the sandbox of an artifact store,
where no other file can be reached. Only overlay videos are separate files next to the page, because they take tens of
megabytes. Every text from an archive goes through `escape`. A content security policy allows only the one script and
the one style, by their digests, so that a text that escaped escaping would still not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from mvpose.quality.judgement import Verdict
from mvpose.records import Clip, ClipFailure
from mvpose.report.subject import CaptureReport, folder_name
from mvpose.report.viewer import script_json
from mvpose.report.wording import MEANINGS, REASONS, label_and_value, number

MAX_FAILURES_LISTED = 200


@dataclass(frozen=True, eq=False)
class PageImage:
    """An image in the page."""

    title: str
    note: str
    mime: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Film:
    """An overlay video next to the page."""

    path: str
    """Relative to the page; letters, digits and `-_./` only."""
    poster: bytes
    """JPEG shown until the video plays."""


@dataclass(frozen=True, eq=False)
class Section:
    """The full section of one capture."""

    subject: CaptureReport
    sheet: Sequence[PageImage]
    """Close-up overlays; may be empty."""
    plots: Sequence[PageImage]
    viewer: Mapping[str, Any]
    film: Film | None
    trouble: str = ""
    """Why there are no overlays; empty if there are."""


def render_page(
    title: str,
    captures: Sequence[CaptureReport],
    sections: Sequence[Section],
    failures: Sequence[ClipFailure],
    summary: Mapping[str, int | float | str],
) -> str:
    """Return the report as one HTML document."""
    body = [
        page_header(title, "3D poses from multiple cameras, with quality figures", summary),
        "<main>",
        _verdicts(captures),
        _capture_table(captures, sections),
        _failures(failures),
        *(_section(section) for section in sections),
        meanings(MEANINGS),
        "</main>",
    ]
    return document(title, "\n".join(body), _resource("viewer.js"))


def document(title: str, body: str, script: str = "") -> str:
    """Return a page of escaped HTML in the house style. Only `script` may run in it; nothing is fetched."""
    style = _resource("page.css")
    policy = (
        f"default-src 'none'; img-src data:; media-src 'self' file:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def page_header(title: str, subtitle: str, summary: Mapping[str, int | float | str]) -> str:
    """Return the title, the subtitle and the summary figures as tiles."""
    labelled = (label_and_value(name, value) for name, value in summary.items())
    tiles = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(label)}</span></div>' for label, v in labelled)
    return (
        f'<header><div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><div class="tiles">{tiles}</div></div></header>'
    )


def anchor(capture_id: str) -> str:
    """Return the anchor of a capture's section, for links from other pages."""
    return f"capture-{folder_name(capture_id)}"


def verdict_text(verdict: Verdict) -> str:
    """Return a verdict as HTML: its grade in colour, and the reason."""
    reason = f": {escape(verdict.reason)}" if verdict.reason else ""
    return f'<b class="{verdict.grade}">{verdict.grade}</b>{reason}'


def _verdicts(captures: Sequence[CaptureReport]) -> str:
    """The captures that are not good, with the reasons; the page starts with them."""
    rows = [
        f"<p><b>{escape(c.capture.capture_id)}</b> is {verdict_text(c.verdict)}</p>"
        for c in captures
        if c.verdict.severity
    ]
    shown = rows[:MAX_FAILURES_LISTED]
    more = f'<p class="note">{number(len(rows) - len(shown))} more.</p>' if len(rows) > len(shown) else ""
    text = "".join(shown) or ('<p class="good">Every capture with a result is good.</p>' if captures else "")
    return f"<section><h2>Verdict</h2>{text}{more}</section>" if text else ""


def _capture_table(captures: Sequence[CaptureReport], sections: Sequence[Section]) -> str:
    """Table of all captures in the given order (worst first), linked to their sections."""
    in_full = {section.subject.capture.capture_id for section in sections}
    heads = ("verdict", "cameras", "frames", "persons", "mean error, px", "sigma, mm")
    heads += ("joints, %", "views", "limb spread, %")
    rows = []
    for subject in captures:
        name = escape(subject.capture.capture_id)
        cells = (
            number(len(subject.capture.rig)),
            number(len(subject.frames)),
            number(len(subject.poses.track_id)),
            number(subject.mean_error_px),
            number(subject.sigma_mm),
            number(100 * subject.joint_share),
            number(subject.mean_views),
            number(100 * subject.bone_spread),
        )
        linked = f'<a href="#{anchor(subject.capture.capture_id)}">{name}</a>'
        link = linked if subject.capture.capture_id in in_full else name
        grade = f'<td class=n><b class="{subject.verdict.grade}">{subject.verdict.grade}</b></td>'
        rows.append(f"<tr><td>{link}</td>{grade}{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th class=n>{h}</th>" for h in heads)
    left_out = len(captures) - len(sections)
    note = f"The first {len(sections)} have a section below." if left_out else ""
    table = f'<div class="wide"><table><tr><th>capture</th>{head}</tr>{"".join(rows)}</table></div>'
    return (
        '<section><h2>Captures</h2><p class="note">Worst first: by verdict, then by mean reprojection error of the '
        "body joints. "
        f"{note}</p>{table if rows else '<p>No capture has a result.</p>'}</section>"
    )


def _failures(failures: Sequence[ClipFailure]) -> str:
    """Failures by reason, with meaning and remedy, then the failed clips."""
    if not failures:
        return '<section><h2>Failures</h2><p class="good">None: every clip has a result.</p></section>'
    parts = []
    for reason, count in Counter(failure.reason for failure in failures).most_common():
        clips = "one clip" if count == 1 else f"{number(count)} clips"
        parts.append(f'<div class="failure"><b>{clips}: {reason.value.replace("_", " ")}.</b> {REASONS[reason]}</div>')
    rows = [
        f"<tr><td>{escape(f.clip.capture_id)}</td><td class=n>{_frames(f.clip)}</td>"
        f"<td class=word>{escape(f.stage)}</td><td>{escape(f.detail)}</td></tr>"
        for f in failures[:MAX_FAILURES_LISTED]
    ]
    more = len(failures) - len(rows)
    rest = f'<p class="note">{number(more)} more are in the table of failures.</p>' if more else ""
    return (
        f'<section><h2>Failures</h2>{"".join(parts)}<div class="wide"><table><tr><th>capture</th>'
        f"<th class=n>frames</th><th>stage</th><th>message</th></tr>{''.join(rows)}</table></div>{rest}</section>"
    )


def _frames(clip: Clip) -> str:
    """The clip's frames, or `all` for a capture that failed before it was split into clips."""
    return f"{clip.start} to {clip.stop - 1}" if clip.stop > clip.start else "all"


def _section(section: Section) -> str:
    subject = section.subject
    figures = (label_and_value(name, value) for name, value in subject.figures.items())
    labelled = "".join(f"<div><span>{escape(label)}</span> <b>{escape(value)}</b></div>" for label, value in figures)
    trouble = f'<div class="failure"><b>No overlays.</b> {escape(section.trouble)}</div>' if section.trouble else ""
    return "\n".join(
        [
            f'<section id="{anchor(subject.capture.capture_id)}"><h2>{escape(subject.capture.capture_id)}</h2>',
            f'<p>{verdict_text(subject.verdict)}</p><p class="note">{_outline(subject)}</p>',
            f'<div class="figures">{labelled}</div>{trouble}',
            _film(section.film) if section.film else "",
            *(shown(image) for image in section.sheet),
            _viewer(section.viewer),
            *(shown(image) for image in section.plots),
            "</section>",
        ]
    )


def _film(film: Film) -> str:
    return (
        f'<h3>Overlay</h3><p class="note">The 3D joints projected into every image. '
        f'The video is <a href="{film.path}">{film.path}</a>, next to this page.</p>'
        f'<video controls muted loop playsinline preload="none" poster="{_data_uri("image/jpeg", film.poster)}" '
        f'src="{film.path}"></video>'
    )


def _outline(subject: CaptureReport) -> str:
    """The capture in one sentence."""
    people = len(subject.poses.track_id)
    seconds = len(subject.frames) / subject.capture.fps
    cameras = ", ".join(escape(name) for name in subject.capture.rig.names)
    return (
        f"{number(len(subject.frames))} frames ({number(seconds)} s at {number(subject.capture.fps)} frames/s), "
        f"{'one person' if people == 1 else f'{people} persons'}, "
        f"joints of {escape(subject.poses.skeleton.name)}, cameras {cameras}."
    )


def _viewer(data: Mapping[str, Any]) -> str:
    last, first_shown = len(data["frames"]) - 1, data["start"]
    return (
        '<h3>3D view</h3><p class="note">Drag to rotate. Click the view to zoom with the wheel, step with '
        "the arrow keys and play with the space bar. Double-click to reset. Blue is the person's left, orange the "
        "right.</p>"
        '<div class="viewer"><canvas tabindex="0" aria-label="skeleton in 3D"></canvas><div class="controls">'
        f'<button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{first_shown}" aria-label="frame">'
        '<output></output><label><input type="checkbox"> show room and cameras</label></div>'
        f'<script type="application/json">{script_json(data)}</script></div>'
    )


def shown(image: PageImage) -> str:
    """Return an image with its title and note."""
    kind = "plot" if image.mime == "image/png" else "photo"
    return (
        f'<h3>{escape(image.title)}</h3><p class="note">{escape(image.note)}</p>'
        f'<img class="{kind}" alt="{escape(image.title)}" src="{_data_uri(image.mime, image.data)}">'
    )


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def meanings(terms_and_meanings: Sequence[tuple[str, str]]) -> str:
    """Return the definitions of the terms on a page."""
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in terms_and_meanings)
    return f"<section><h2>Definitions</h2><dl>{terms}</dl></section>"


def _resource(name: str) -> str:
    return resources.files("mvpose.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
