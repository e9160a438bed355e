"""Quality of one capture: where and when the error is, how many views there were, whether limbs keep their length."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvpose.report.figures import new_figure, say_nothing_to_show
from mvpose.report.palette import GRID_INK, INK, SERIES_INK, TEXT_INK, sides
from mvpose.report.subject import CaptureReport, bone_lengths, length_spread, limb_bones, mean_known
from mvpose.skeleton import Skeleton

# Numbers in the cells of a heat map stay legible at 1200 px width up to about this many.
MOST_NUMBERED_CELLS = 500
MOST_PEOPLE_SHOWN = 3
_LIMB_OF_CHILD = {"elbow": "upper arm", "wrist": "forearm", "knee": "thigh", "ankle": "shin"}


def error_map(subject: CaptureReport, errors: Float[np.ndarray, "V T P J"]) -> Figure:
    """Mean reprojection error (px) and share of frames used, by camera and joint; dark is bad in both."""
    joints = _joints_in_order(subject)
    rig, skeleton = subject.capture.rig, subject.poses.skeleton
    labels = [skeleton.joints[j].replace("_", " ") for j in joints]
    used = np.where(subject.present[..., None, None], subject.poses.views_used, np.nan)
    share = mean_known(np.moveaxis(used, -1, 0)[..., joints], axis=(1, 2)) * 100
    with new_figure(2.6 + 0.56 * len(rig)) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        _heat_map(above, mean_known(errors[..., joints], axis=(1, 2)), rig.names, "{:.1f}", "px", "YlOrBr", None)
        above.set_title("Reprojection error in the views used, mean in px")
        _heat_map(below, share, rig.names, "{:.0f}", "%", "YlOrBr_r", 100.0)
        below.set_title("Share of frames in which the view was used, %")
        below.set_xticks(range(len(labels)), labels, rotation=55, ha="right", rotation_mode="anchor")
        for axes in (above, below):
            if len(subject.body) < len(joints):
                axes.axvline(len(subject.body) - 0.5, color=TEXT_INK, linewidth=1.2)
    return figure


def error_over_time(subject: CaptureReport, errors: Float[np.ndarray, "V T P J"]) -> Figure:
    """Error by camera (px), views used and share of body joints reconstructed, over seconds; lines break at gaps."""
    poses, body, names = subject.poses, subject.body, subject.capture.rig.names
    with new_figure(6.4) as figure:
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2.2, 1.2, 1.0])
        by_camera = mean_known(errors[..., body], axis=(2, 3))
        few = len(names) <= len(SERIES_INK)
        for v, name in enumerate(names):
            ink = SERIES_INK[v] if few else "#9aa5b1"
            top.plot(
                *_on_clock(subject, by_camera[v]), color=ink, linewidth=1.0, label=_shortened(name) if few else None
            )
        top.plot(*_on_clock(subject, subject.frame_errors_px), color=TEXT_INK, linewidth=2.2, label="all cameras")
        top.set_ylim(bottom=0)
        top.set(ylabel="error, px", title="Reprojection error of the body joints")
        top.legend(ncols=9, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=9, borderaxespad=0.2)

        found = np.isfinite(poses.xyz[:, :, body, 0])
        views = np.where(found, poses.num_views[:, :, body], np.nan).reshape(len(subject.frames), -1)
        times, fewest = _on_clock(subject, np.fmin.reduce(views, axis=1, initial=np.nan))
        middle.fill_between(
            times, fewest, _on_clock(subject, np.fmax.reduce(views, axis=1, initial=np.nan))[1], color="#c7dff0", lw=0
        )
        middle.plot(*_on_clock(subject, mean_known(views, axis=1)), color=INK["left"])
        middle.set_ylim(0, len(names) + 0.3)
        middle.yaxis.get_major_locator().set_params(integer=True)
        middle.set(ylabel="views", title="Views behind a body joint: mean, and from the fewest to the most")

        there = np.where(subject.present[:, :, None], found, np.nan)
        times, share = _on_clock(subject, mean_known(there, axis=(1, 2)) * 100)
        bottom.fill_between(times, share, color="#bfe3d6", lw=0)
        bottom.plot(times, share, color="#009e73")
        bottom.set_ylim(0, 105)
        bottom.margins(x=0.01)
        bottom.set(ylabel="%", xlabel="time, s", title="Share of body joints reconstructed")
    return figure


def limb_lengths(subject: CaptureReport) -> Figure:
    """Length of the limbs over seconds (mm) and their spread (%), by person: true bones do not change their length."""
    poses = subject.poses
    bones = limb_bones(poses.skeleton)
    lengths_mm = bone_lengths(poses, bones) * 1000.0
    spread = length_spread(lengths_mm) * 100.0
    longest = np.argsort(-np.isfinite(lengths_mm).any(axis=2).sum(axis=0), kind="stable")[:MOST_PEOPLE_SHOWN]
    names = [_bone_name(poses.skeleton, a, b) for a, b in bones]
    with new_figure(0.4 + 3.4 * max(1, len(longest))) as figure:
        if not len(longest) or not bones:
            say_nothing_to_show(figure.subplots(), "No limb was reconstructed.")
            return figure
        rows = figure.subplots(len(longest), 2, squeeze=False, width_ratios=[1.9, 1.0])
        for (left, right), person in zip(rows, longest, strict=True):
            who = f" of person {poses.track_id[person]}" if poses.xyz.shape[1] > 1 else ""
            _lengths_over_time(left, subject, lengths_mm[:, person], bones)
            left.set(xlabel="time, s", ylabel="length, mm", title=f"Limb lengths{who}")
            _spread_bars(
                right, names, spread[person], np.ma.median(np.ma.masked_invalid(lengths_mm[:, person]), axis=0)
            )
            right.set_title("Spread: standard deviation / median", loc="right")
    return figure


def _lengths_over_time(
    axes: Axes, subject: CaptureReport, lengths_mm: Float[np.ndarray, "T n"], bones: list[tuple[int, int]]
) -> None:
    """One colour a limb; left solid, right dashed."""
    skeleton = subject.poses.skeleton
    kinds = list(dict.fromkeys(_limb(skeleton, a, b) for a, b in bones))
    side = sides(skeleton)
    for i, (a, b) in enumerate(bones):
        kind = _limb(skeleton, a, b)
        axes.plot(
            *_on_clock(subject, lengths_mm[:, i]),
            color=SERIES_INK[kinds.index(kind) % len(SERIES_INK)],
            linestyle="--" if side[b] == "right" else "-",
            label=kind if side[b] != "right" else None,
        )
    axes.set_ylim(bottom=0)
    axes.legend(ncols=4, loc="lower left", fontsize=9, title="left solid, right dashed", title_fontsize=9)


def _spread_bars(
    axes: Axes, names: list[str], spread: Float[np.ndarray, " n"], median_mm: Float[np.ndarray, " n"]
) -> None:
    places = np.arange(len(names))
    inks = [INK[name.split()[0] if name.split()[0] in INK else "middle"] for name in names]
    axes.barh(places, np.nan_to_num(spread), color=inks, height=0.62)
    for place, value, length in zip(places, spread, np.ma.filled(median_mm, np.nan), strict=True):
        told = f"{value:.1f} %  ({length:.0f} mm)" if np.isfinite(value) else "never seen"
        axes.annotate(
            told, (np.nan_to_num(value), place), (4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_xlim(0, max(5.0, 1.75 * float(np.nanmax(np.nan_to_num(spread)))))
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("%")


def _heat_map(
    axes: Axes,
    values: Float[np.ndarray, "V J"],
    names: tuple[str, ...],
    told: str,
    unit: str,
    colours: str,
    largest: float | None,
) -> None:
    """Cells with their numbers; a cell without a value is grey."""
    known = values[np.isfinite(values)]
    top = largest if largest is not None else float(known.max()) if known.size else 1.0
    picture = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=0.0, vmax=top, aspect="auto")
    axes.set_facecolor(GRID_INK)
    axes.figure.colorbar(picture, ax=axes, label=unit, fraction=0.03, pad=0.01)
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    if values.size > MOST_NUMBERED_CELLS:
        return
    for v, j in np.argwhere(np.isfinite(values)):
        red, green, blue, _ = picture.cmap(picture.norm(values[v, j]))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else TEXT_INK
        axes.text(j, v, told.format(values[v, j]), ha="center", va="center", fontsize=8, color=ink)


def _joints_in_order(subject: CaptureReport) -> list[int]:
    """The body joints, then the others."""
    body = subject.body
    return [*body, *(j for j in range(len(subject.poses.skeleton.joints)) if j not in body)]


def _on_clock(
    subject: CaptureReport, values: Float[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Seconds and values of every frame from the first to the last; NaN where a frame has no row."""
    first, last = int(subject.frames[0]), int(subject.frames[-1])
    full = np.full(last - first + 1, np.nan)
    full[subject.frames - first] = values
    return subject.capture.times_s(np.arange(first, last + 1)), full


def _limb(skeleton: Skeleton, parent: int, child: int) -> str:
    """The limb without its side: thigh, forearm, ..."""
    ends = [skeleton.joints[i].removeprefix("left_").removeprefix("right_") for i in (parent, child)]
    return _LIMB_OF_CHILD.get(ends[1], " to ".join(ends).replace("_", " "))


def _bone_name(skeleton: Skeleton, parent: int, child: int) -> str:
    side = sides(skeleton)[child]
    limb = _limb(skeleton, parent, child)
    return limb if side == "middle" else f"{side} {limb}"


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
