"""Whether frame k of one camera is frame k of the others: the shift in time at which its 2D joints move as they say.

A camera's joints are compared with where the others expect them, at every shift. Constant differences are taken away,
joint by joint and run by run: what remains is motion alone, and a camera that is turned or badly calibrated is not
mistaken for a late one. A shift is measured only where its minimum is sharp: where nobody moves, noise alone has a
least value at some shift too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.sightings import Sightings, expectation, shifted_frames

# From the minimum of the whole take, the misfit must rise on both sides to so many times the least: people must move by
# as much as the misfit itself (the root of 1 + 1). People who walk give 2.7 within 12 frames on the demos, 5 to 15 in
# the scenes.
SHARP = 2**0.5
# From that of one stretch alone to so many: before a detector that drifts by 3 px, joint by joint, someone who stands
# still gives 1.4 at most in 240 stretches; where all joints drift together, 1.9 in 99 % of them.
SHARP_ALONE = 2.0
# A misfit this much above the least is not told from it. On the demos these are shifts within 0.3 to 0.6 frames; the
# offsets of halves of the footage lie up to 0.9 apart.
INDISTINCT = 1.05
# A shift that lowers the misfit by less is noise: with all cameras of the demos in step no camera gains by any.
LEAST_GAIN = 0.05
# A shift less certain than so many frames is not measured.
CERTAIN = 2.0
# Observations that the median of a run is told on at least.
LEAST_OBSERVED = 100


@dataclass(frozen=True, eq=False)
class CameraTiming:
    """How a camera's clock stands against the others'."""

    offset_frames: float
    """Frames by which it is late: what it shows in frame k, the others showed in frame k - offset. NaN where it cannot
    be measured; the largest shift that was tried where the true one is larger."""
    uncertainty_frames: float
    """Half the range of shifts that fit about as well; infinite where the offset is not measured."""
    misfit_px: float
    """Of motion alone, at the best shift."""
    unshifted_px: float
    """The same without a shift."""
    run_offsets: Float[Tensor, " R"]
    """By run; NaN where a run tells nothing."""
    drift_frames: float
    """How much the offset grows from the first to the last frame; NaN where fewer than three runs tell."""
    at_limit: bool
    """Whether the offset is the largest shift that was tried, or more."""


@dataclass(frozen=True, eq=False)
class _Curve:
    """Misfit of one camera at each shift from -limit to limit; NaN with too little to compare."""

    misfit_px: Float[Tensor, " S"]
    """Of all runs together."""
    by_run: Float[Tensor, "R S"]


def synchronised(
    sightings: Sightings, rig: CameraRig, limit: int
) -> tuple[tuple[CameraTiming, ...], Int[Tensor, "V R"]]:
    """The timing of every camera against the others, and the whole frames by which to shift each, run by run, to fit.

    One camera out of step spoils what the others are compared with, so that cameras are shifted one at a time, the one
    that gains most first, and all are compared again. With two cameras only their difference is known: it is told of
    the second. Shifts go up to `limit` frames; runs shorter than three times that tell nothing.
    """
    shifts = torch.zeros(len(rig), int(sightings.run.max()) + 1, dtype=torch.long)
    judged = range(1, 2) if len(rig) == 2 else range(len(rig))
    for _ in range(len(rig)):
        moved = sightings.shifted(shifts)
        curves = {view: _curve(moved, rig, view, limit) for view in judged if not shifts[view].any()}
        gains = {view: _gain(curve) for view, curve in curves.items()}
        view = max(gains, key=lambda v: gains[v], default=0)
        if gains.get(view, 0.0) < LEAST_GAIN:
            break
        shifts[view] = _steps(curves[view])
    timings = [CameraTiming(0.0, 0.0, torch.nan, torch.nan, torch.empty(0), torch.nan, False)] * len(rig)
    for view in judged:
        others = shifts.clone()
        others[view] = 0
        timings[view] = _timing(_curve(sightings.shifted(others), rig, view, limit))
    return tuple(timings), shifts


def _curve(sightings: Sightings, rig: CameraRig, view: int, limit: int) -> _Curve:
    """Every shift is judged on the same frames: those that have neighbours as far as the largest shift."""
    expected = expectation(sightings, rig, view)
    inner = shifted_frames(sightings.run, limit)[1] & shifted_frames(sightings.run, -limit)[1]
    num_runs = int(sightings.run.max()) + 1
    by_run = torch.full((num_runs, 2 * limit + 1), torch.nan, dtype=torch.float64)
    count = torch.zeros_like(by_run)
    for i, frames in enumerate(range(-limit, limit + 1)):
        source, _ = shifted_frames(sightings.run, frames)
        known = expected.known & (sightings.weight[source][..., view] > 0) & inner[:, None, None]
        apart = expected.offsets(sightings.ideal[source][..., view, :])
        apart = torch.where(known[..., None], apart, torch.nan)
        for r in range(num_runs):
            of_run = apart[sightings.run == r]
            moving = (of_run - of_run.nanmedian(dim=0, keepdim=True).values).norm(dim=-1)
            by_run[r, i] = moving.nanmedian()
            count[r, i] = (~moving.isnan()).sum()
    return _Curve(_together(by_run, count), torch.where(count >= LEAST_OBSERVED, by_run, torch.nan))


def _together(by_run: Float[Tensor, "R S"], count: Float[Tensor, "R S"]) -> Float[Tensor, " S"]:
    """Geometric mean, weighted by observations: every run has its own noise, and one in which nobody moves is flat."""
    there = (count > 0).all(dim=1)
    by_run, count = by_run[there], count[there]
    mean = ((by_run.clamp_min(1e-9).log() * count).sum(dim=0) / count.sum(dim=0)).exp()
    return torch.where(count.sum(dim=0) >= LEAST_OBSERVED, mean, torch.nan)


def _best(misfit: Float[Tensor, " S"]) -> int:
    return int(misfit.nan_to_num(torch.inf).argmin())


def _steps(curve: _Curve) -> Int[Tensor, " R"]:
    """Whole frames by which to shift each run: its own best, or that of all runs where it tells nothing."""
    together = torch.tensor(_timing(curve).offset_frames).nan_to_num()
    own = _run_offsets(curve)
    return torch.where(own.isnan(), together, own).round().long()


def _gain(curve: _Curve) -> float:
    """Share of the misfit that the best shifts take away."""
    limit = len(curve.misfit_px) // 2
    steps = _steps(curve)
    now, then = curve.by_run[:, limit], curve.by_run.gather(1, (steps + limit)[:, None])[:, 0]
    there = now.isfinite() & then.isfinite()
    return float(1.0 - then[there].sum() / now[there].sum()) if there.any() else 0.0


def _run_offsets(curve: _Curve) -> Float[Tensor, " R"]:
    """NaN where a run tells nothing."""
    return torch.tensor([_minimum(misfit, SHARP_ALONE)[0] for misfit in curve.by_run])


def _timing(curve: _Curve) -> CameraTiming:
    limit = len(curve.misfit_px) // 2
    offset, uncertainty = _minimum(curve.misfit_px, SHARP)
    best = _best(curve.misfit_px)
    at_limit = best in (0, 2 * limit) and bool(curve.misfit_px[limit] > SHARP * curve.misfit_px[best])
    by_run = _run_offsets(curve)
    return CameraTiming(
        offset_frames=float(best - limit) if at_limit else offset,
        uncertainty_frames=uncertainty,
        misfit_px=float(curve.misfit_px[best]),
        unshifted_px=float(curve.misfit_px[limit]),
        run_offsets=by_run,
        drift_frames=_drift(by_run),
        at_limit=at_limit,
    )


def _minimum(misfit: Float[Tensor, " S"], sharp: float) -> tuple[float, float]:
    """Shift of the least misfit, sub-frame by a parabola through three, and half the range that fits about as well.

    NaN and infinity where it is not sharp: the shift of the least misfit is then that of noise.
    """
    limit = len(misfit) // 2
    best = _best(misfit)
    least = float(misfit[best])
    walls = misfit > sharp * least
    alike = (misfit <= INDISTINCT * least).nonzero()[:, 0].tolist()
    if not (misfit.isfinite().all() and walls[:best].any() and walls[best:].any()):
        return torch.nan, torch.inf
    left, right = alike[0], alike[-1]
    if left == 0 or right == 2 * limit:
        return torch.nan, torch.inf
    before, _, after = misfit[best - 1 : best + 2].tolist()
    bend = before - 2 * least + after
    offset = best - limit + (0.5 * (before - after) / bend if bend > 0 else 0.0)
    level = INDISTINCT * least
    start = left - float((level - misfit[left]) / (misfit[left - 1] - misfit[left]))
    stop = right + float((level - misfit[right]) / (misfit[right + 1] - misfit[right]))
    uncertainty = (stop - start) / 2
    return (offset, uncertainty) if uncertainty <= CERTAIN else (torch.nan, torch.inf)


def _drift(offsets: Float[Tensor, " R"]) -> float:
    """Median slope over all pairs of runs (Theil and Sen), times the runs between the first and the last."""
    there = offsets.isfinite().nonzero()[:, 0]
    if len(there) < 3:
        return torch.nan
    i, j = torch.combinations(there).T
    return float(((offsets[j] - offsets[i]) / (j - i)).median() * (len(offsets) - 1))
