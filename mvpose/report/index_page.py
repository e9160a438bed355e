"""One page over the captures of one or many runs, worst first, with links to the page of each run.

It is made of what runs say of themselves (summary.json), so that a thousand captures cost no more than their text.

How bad a capture is: each of a few figures is divided by the value from which on it asks for a look (`LOOK_AT`), and
the largest counts. Below 1 nothing stands out. A capture without any result is infinitely bad.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mvpose.report.page import document, meanings, page_header
from mvpose.report.wording import MEANINGS, number

INDEX = "index.html"

# Beside each the good demo footage (one person, four cameras, adjusted rig not needed) and the figure that is known of
# bad runs: freemocap's heels under the floor came with a bone spread of tens of per cent and 0.28 px.
LOOK_AT = {
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
    return f"{label} {LOOK_AT[name] * (100 if unit == '%' else 1):g} {unit}"


_OWN_MEANINGS = (
    (
        "Badness",
        "The largest of a row's figures, each divided by the value from which on it asks for a look: "
        f"{'; '.join(map(_limit, LOOK_AT))}. Below 1 nothing stands out; a capture without a result comes first.",
    ),
    (
        "Left-out error",
        "How far what a camera shows is from what the other cameras reconstruct without it, at the person's distance.",
    ),
    ("Left/right swaps", "Observations in which the detector took left for right, of all that were used."),
    ("Too fast", "Steps from one frame to the next that no person can make (25 m/s), of all."),
)


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """A capture of a run, as its figures tell it."""

    run: str
    capture_id: str
    figures: Mapping[str, float]
    """Of the run's summary; empty where nothing was reconstructed."""
    failed_share: float
    """Frames without a result because a clip failed, of all."""
    reasons: tuple[str, ...] = ()
    """Why clips failed."""
    link: str = ""
    """From the index to the page that shows it; empty where there is none."""

    @property
    def judged(self) -> dict[str, float]:
        """The figures that count, all of them such that more is worse; NaN where one could not be measured."""
        own = {"body_missing_share": 1.0 - self.figures.get("body_reconstructed_share", math.nan)}
        own["failed_share"] = self.failed_share
        return {name: own.get(name, self.figures.get(name, math.nan)) for name in LOOK_AT}

    @property
    def severity(self) -> tuple[float, str]:
        """How bad, and the figure that says so."""
        if not self.figures:
            return math.inf, "no result"
        shares = {name: value / LOOK_AT[name] for name, value in self.judged.items() if math.isfinite(value)}
        worst = max(shares, key=lambda name: shares[name])
        return shares[worst], _LABELS[worst].rpartition(",")[0]


def index_page(title: str, rows: Sequence[IndexRow]) -> str:
    """The whole page, worst capture first; captures equally bad by name."""
    ordered = sorted(rows, key=lambda row: (-row.severity[0], row.run, row.capture_id))
    runs = len({row.run for row in rows})
    bad = sum(row.severity[0] >= 1 for row in rows)
    summary = {"runs": runs, "captures": len(rows), "to look at": bad}
    heads = "".join(f"<th class=n>{escape(label)}</th>" for label in ("badness", *_LABELS.values()))
    table = (
        f"<table class=index><tr><th>capture</th>{'<th>run</th>' if runs > 1 else ''}<th>stands out</th>{heads}</tr>"
        f"{''.join(_row(row, several=runs > 1) for row in ordered)}</table>"
    )
    body = [
        page_header(title, "All captures, worst first", summary),
        '<main><section><h2>Captures</h2><p class="note">Sorted by badness. A name leads to the page of its run; '
        f'figures that ask for a look are red.</p><div class="wide">{table}</div></section>',
        meanings((*_OWN_MEANINGS, *(m for m in MEANINGS if m[0] == "Limb spread, %"))),
        "</main>",
    ]
    return document(title, "\n".join(body))


def _row(row: IndexRow, *, several: bool) -> str:
    severity, why = row.severity
    name = escape(row.capture_id)
    link = f'<a href="{escape(row.link, quote=True)}">{name}</a>' if row.link else name
    reasons = f"<br><small>{escape(', '.join(row.reasons).replace('_', ' '))}</small>" if row.reasons else ""
    label = "∞" if math.isinf(severity) else f"{severity:.2f}"
    cells = [_cell(label, severity >= 1)]
    for figure, value in row.judged.items():
        shown = number(100 * value if figure.endswith("_share") else value)
        cells.append(_cell(shown, value >= LOOK_AT[figure]))
    run = f"<td>{escape(row.run)}</td>" if several else ""
    return f"<tr><td>{link}</td>{run}<td>{escape(why) if severity >= 1 else ''}{reasons}</td>{''.join(cells)}</tr>"


def _cell(text: str, bad: bool) -> str:
    return f'<td class="n bad">{text}</td>' if bad else f"<td class=n>{text}</td>"
