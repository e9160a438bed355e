"""Index page: the captures of one or many runs, worst first, with links to the report of each run.

It reads only each run's summary.json and figures, so that its cost for a thousand captures is that of their text.

Captures are sorted by verdict, then by score: the maximum of the figures, each divided by its review threshold
(`REVIEW_AT`). Below 1, no figure exceeds its threshold. A capture without a result has an infinite score. A figure that
could not be measured has no share in the score; the verdict does not count it as good.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mvpose.quality.judgement import NOT_JUDGED, Grade, Verdict
from mvpose.report.page import document, meanings, page_header, verdict_text
from mvpose.report.wording import MEANINGS, number

INDEX = "index.html"

# The comments give the value on the good demo footage (one person, four cameras, rig not adjusted). A known bad run:
# freemocap's heels under the floor had a bone spread of tens of per cent at 0.28 px.
REVIEW_AT = {
    "body_used_mean_mm": 30.0,  # demo 14
    "body_left_out_mean_mm": 80.0,  # demo 32
    "body_missing_share": 0.10,  # demo 0.00
    "body_bone_spread_share": 0.10,  # demo 0.04
    "swapped_share": 0.02,  # demo 0.00
    "too_fast_share": 0.002,  # demo 0.00
    "failed_share": 0.05,
}
_LABELS = {
    "body_used_mean_mm": "error, mm",
    "body_left_out_mean_mm": "left-out error, mm",
    "body_missing_share": "joints missing, %",
    "body_bone_spread_share": "limb spread, %",
    "swapped_share": "left/right swaps, %",
    "too_fast_share": "too fast, %",
    "failed_share": "frames failed, %",
}


def _limit(name: str) -> str:
    label, _, unit = _LABELS[name].rpartition(", ")
    return f"{label} {REVIEW_AT[name] * (100 if unit == '%' else 1):g} {unit}"


_OWN_MEANINGS = (
    (
        "Verdict",
        "Good: every check passed. Usable: a check warns, or could not be made. Bad: a check failed, and the poses "
        "cannot be trusted. The reason is the finding that explains the others; verdicts.parquet has all of them.",
    ),
    (
        "Score",
        "The maximum of a row's figures, each divided by its review threshold: "
        f"{'; '.join(map(_limit, REVIEW_AT))}. Below 1, no figure exceeds its threshold. A capture without a result "
        "comes first.",
    ),
    (
        "Left-out error",
        "Distance between a camera's 2D joints and the 3D joints reconstructed from the other cameras only, at the "
        "person's distance.",
    ),
    ("Left/right swaps", "Share of the used observations in which the detector confused left and right."),
    ("Too fast", "Share of frame-to-frame steps faster than a person can move (25 m/s)."),
)


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """A capture of a run with its figures."""

    run: str
    capture_id: str
    figures: Mapping[str, float]
    """From the run's summary; empty if nothing was reconstructed."""
    failed_share: float
    """Share of the frames without a result because a clip failed."""
    reasons: tuple[str, ...] = ()
    """Reasons of the failed clips."""
    verdict: Verdict = NOT_JUDGED
    link: str = ""
    """Link from the index to the capture's section; empty if there is none."""

    @property
    def scored_figures(self) -> dict[str, float]:
        """The figures that are scored. A higher value is always worse; NaN if it could not be measured."""
        own = {"body_missing_share": 1.0 - self.figures.get("body_reconstructed_share", math.nan)}
        own["failed_share"] = self.failed_share
        return {name: own.get(name, self.figures.get(name, math.nan)) for name in REVIEW_AT}

    @property
    def score(self) -> float:
        """Maximum of the figures over their thresholds."""
        if not self.figures:
            return math.inf
        shares = (value / REVIEW_AT[name] for name, value in self.scored_figures.items())
        return max(share for share in shares if math.isfinite(share))


def index_page(title: str, rows: Sequence[IndexRow]) -> str:
    """Return the page, worst capture first; captures with equal scores are sorted by name."""
    ordered = sorted(rows, key=lambda row: (-row.verdict.severity, -row.score, row.run, row.capture_id))
    runs = len({row.run for row in rows})
    count = Counter(row.verdict.grade for row in rows)
    summary = {"runs": runs, "captures": len(rows), "to look at": len(rows) - count[Grade.GOOD]}
    summary |= {grade: count[grade] for grade in Grade}
    heads = "".join(f"<th class=n>{escape(label)}</th>" for label in ("score", *_LABELS.values()))
    table = (
        f"<table class=index><tr><th>capture</th>{'<th>run</th>' if runs > 1 else ''}<th>verdict</th>{heads}</tr>"
        f"{''.join(_row(row, several=runs > 1) for row in ordered)}</table>"
    )
    body = [
        page_header(title, "All captures, worst first", summary),
        '<main><section><h2>Captures</h2><p class="note">Worst first, by verdict and score. A name links to the report '
        "of its run. "
        f'Figures above their review threshold are red.</p><div class="wide">{table}</div></section>',
        meanings((*_OWN_MEANINGS, *(m for m in MEANINGS if m[0] == "Limb spread, %"))),
        "</main>",
    ]
    return document(title, "\n".join(body))


def _row(row: IndexRow, *, several: bool) -> str:
    name = escape(row.capture_id)
    link = f'<a href="{escape(row.link, quote=True)}">{name}</a>' if row.link else name
    reasons = f"<br><small>{escape(', '.join(row.reasons).replace('_', ' '))}</small>" if row.reasons else ""
    label = "∞" if math.isinf(row.score) else f"{row.score:.2f}"
    cells = [_cell(label, row.score >= 1)]
    for figure, value in row.scored_figures.items():
        shown = number(100 * value if figure.endswith("_share") else value)
        cells.append(_cell(shown, value >= REVIEW_AT[figure]))
    run = f"<td>{escape(row.run)}</td>" if several else ""
    return f"<tr><td>{link}</td>{run}<td class=why>{verdict_text(row.verdict)}{reasons}</td>{''.join(cells)}</tr>"


def _cell(text: str, bad: bool) -> str:
    return f'<td class="n bad">{text}</td>' if bad else f"<td class=n>{text}</td>"
