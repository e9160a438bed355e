"""HTML page of an evaluation: figures with intervals, errors by part, and the worst samples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import cv2
import numpy as np

from mvpose.evaluation.answers import metric_names
from mvpose.evaluation.comparison import of_samples
from mvpose.evaluation.subject_errors import Evaluation
from mvpose.evaluation.summary import at_max_views, by_action, by_views, left_out
from mvpose.evaluation.worst import Worst
from mvpose.metrics.intervals import Estimate
from mvpose.report.comparison_sheet import comparison_sheet
from mvpose.report.evaluation_plots import cumulative_errors, error_bars, error_over_views
from mvpose.report.figures import INK, sides, to_png
from mvpose.report.page import PageImage, document, meanings, page_header, shown

PNG = "image/png"
MEANINGS = (
    (
        "MPJPE",
        "Mean distance between predicted and true joints in the world, over the joints that have an answer; 'found' is "
        "their share. Relative: after aligning the roots. PA: after the best rotation, "
        "translation and scale. N: root-relative, after the best scale. MPJVE: error of the frame-to-frame movement. "
        "A network of one view knows no distance: it assumes the size of people, so judge it by the relative errors.",
    ),
    (
        "PCK, AUC, NPCK, PCP",
        "Share of joints within 150 mm, root-relative; its mean over limits of 0 to 150 mm; PCK after the best scale; "
        "share of bones whose ends are on average within half the bone's length. A joint without an answer is wrong.",
    ),
    (
        "JDR, PSS",
        "JDR: share of 2D joints within half a head (a tenth of the crop) of the truth. PSS: share of predictions in "
        "the same pose cluster as the truth.",
    ),
    (
        "Intervals",
        "95 % by bootstrap: whole sequences are drawn with replacement, because frames of one sequence are "
        "similar. With one sequence there is no interval. Two methods with overlapping intervals may still differ: "
        "compare them on the same samples with `mvpose evaluate A B`.",
    ),
    (
        "Views",
        "If only some of the cameras are used, they are drawn for each sample, identically in every run; smaller "
        "sets are subsets of larger ones.",
    ),
)


def evaluation_page(title: str, evaluation: Evaluation, worst: Sequence[Worst], trouble: str = "") -> str:
    """Return the page as HTML with embedded images. `trouble` says why the worst samples cannot be shown."""
    estimates, subject = evaluation.estimates, evaluation.subject
    head = {"MPJPE_mm": 1000 * estimates["mpjpe_m"].mean if "mpjpe_m" in estimates else float("nan")}
    for label, name in (("relative_mm", "mpjpe_relative_m"), ("procrustes_mm", "pa_mpjpe_m")):
        if name in estimates:
            head[label] = 1000 * estimates[name].mean
    main = at_max_views(evaluation.rows)
    captures = evaluation.rows.capture.to_numpy(str)[main]
    counts = {"samples": int(main.sum()), "sequences": len(set(captures.tolist()))}
    parts = [
        page_header(title, f"Against ground truth: {subject.protocol}", head | counts),
        "<main>",
        f"<section><h2>Figures</h2>{_metric_table(estimates, metric_names(evaluation.rows))}{_views_table(evaluation)}"
        + "".join(f'<p class="note">{escape(note)}</p>' for note in left_out(evaluation.rows))
        + f'<p class="note">Data {subject.data_sha256[:16]}, model {subject.model_sha256[:16]}.</p></section>',
        "<section><h2>Errors by part</h2>",
        *(shown(image) for image in plots(evaluation)),
        "</section>",
        _worst_section(worst, trouble),
        meanings(MEANINGS),
        "</main>",
    ]
    return document(title, "\n".join(parts))


def plots(evaluation: Evaluation) -> list[PageImage]:
    """Plots of the error: over views, cumulative, by joint, by action."""
    rows, skeleton = evaluation.rows, evaluation.subject.skeleton
    series = {_series_name(*key): counts for key, counts in by_views(rows).items()}
    joints = {j: e for j in skeleton.joints if (e := evaluation.estimates.get(f"mpjpe_m/joint={j}"))}
    inks = [INK[side] for j, side in zip(skeleton.joints, sides(skeleton), strict=True) if j in joints]
    errors = np.stack(rows.joint_error_m.tolist()).astype(np.float64)
    views = rows["views"].to_numpy(np.int64)
    scored = [j for j, joint in enumerate(skeleton.joints) if joint in joints]
    counts = sorted(set(views.tolist()), reverse=True)[:8]
    spread = {f"{n} views": errors[views == n][:, scored].ravel() for n in counts}
    made = [
        ("Error over views", "Mean over frames with its 95 % interval.", error_over_views(series)),
        (
            "Cumulative error",
            "Share of joints whose error is below x; a joint without an answer never counts.",
            cumulative_errors(spread),
        ),
        ("By joint", "At the maximum number of views. Blue is left, orange is right.", error_bars(joints, inks)),
        ("By action", "At the maximum number of views; at most the forty largest.", error_bars(by_action(rows))),
    ]
    return [PageImage(title, note, PNG, to_png(figure)) for title, note, figure in made]


def _series_name(benchmark: str, unseen: bool) -> str:
    return benchmark or ("unseen cameras" if unseen else "all samples")


def _metric_table(estimates: dict[str, Estimate], metrics: Sequence[str]) -> str:
    """Figures over all rows and their parts: metrics as rows, parts as columns. Of [12 of 300] samples, if not all."""
    parts = [p for p in ("", "filtered", "seen", "unseen") if not p or f"mpjpe_m/{p}" in estimates]
    if parts.count("seen") + parts.count("unseen") == 1:
        parts = [p for p in parts if p not in ("seen", "unseen")]
    rows = []
    scored = [e.samples if (e := estimates.get(f"found/{part}" if part else "found")) else 0 for part in parts]
    for metric in metrics:
        cells = [estimates.get(f"{metric}/{part}" if part else metric) for part in parts]
        if any(cells):
            cells_html = "".join(
                f"<td class=n>{_cell_text(metric, cell)}{of_samples(cell, samples)}</td>"
                for cell, samples in zip(cells, scored, strict=True)
            )
            rows.append(f"<tr><td>{escape(_label(metric))}</td>{cells_html}</tr>")
    mean = estimates.get("mpjpe_m/action_mean")
    if mean:
        empty = "<td></td>" * (len(parts) - 1)
        rows.append(f"<tr><td>MPJPE, mean of actions</td><td class=n>{_cell_text('mpjpe_m', mean)}</td>{empty}</tr>")
    head = "".join(f"<th class=n>{escape(part or 'all')}</th>" for part in parts)
    return f'<div class="wide"><table><tr><th>maximum views</th>{head}</tr>{"".join(rows)}</table></div>'


def _views_table(evaluation: Evaluation) -> str:
    found = by_views(evaluation.rows, "found")
    rows = []
    for key, counts in by_views(evaluation.rows).items():
        for count, estimate in counts.items():
            rows.append(
                f"<tr><td>{escape(_series_name(*key))}{', unseen cameras' if key[1] and key[0] else ''}</td>"
                f"<td class=n>{count}</td><td class=n>{_cell_text('mpjpe_m', estimate)}</td>"
                f"<td class=n>{_cell_text('found', found[key][count])}</td></tr>"
            )
    head = "<tr><th>by number of views</th><th class=n>views</th><th class=n>MPJPE</th><th class=n>found</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _label(metric: str) -> str:
    return metric.removesuffix("_m").replace("_", " ").upper() if metric != "found" else "joints found"


def _cell_text(metric: str, estimate: Estimate | None) -> str:
    if estimate is None or not np.isfinite(estimate.mean):
        return "–"
    scale, unit = (1000, "mm") if metric.endswith("_m") else (100, "%")
    span = f" ({scale * estimate.low:.1f} to {scale * estimate.high:.1f})" if np.isfinite(estimate.low) else ""
    return f"{scale * estimate.mean:.1f}{span} {unit}"


def _worst_section(worst: Sequence[Worst], trouble: str) -> str:
    if trouble or not worst:
        cells_html = escape(trouble or "No sample has an answer.")
        return f'<section><h2>Worst samples</h2><p class="note">{cells_html}</p></section>'
    sheet = comparison_sheet([w.drawn for w in worst])
    _, data = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    note = "Largest MPJPE at the maximum number of views. Blue is the truth, orange the prediction; up to four views."
    return f"<section><h2>Worst samples</h2>{shown(PageImage('', note, 'image/jpeg', data.tobytes()))}</section>"
