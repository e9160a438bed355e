"""Measure synchronisation: the shift in time at which a camera's 2D joints move as the other cameras predict.

A camera's joints are compared with their expected positions at every shift. Constant differences are subtracted, per
joint and run. Only motion remains, so a rotated or badly calibrated camera is not mistaken for a late one. A shift is
measured only if its minimum is sharp: without motion, noise alone also has a minimum at some shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.sightings import Sightings, expectation, shifted_frames

# On both sides of the minimum over the whole take, the misfit must rise to this multiple of it: people must move by as
# much as the misfit itself (the root of 1 + 1). Walking people give 2.7 within 12 frames on the demos, 5 to 15 in the
# scenes.
SHARP = 2**0.5
# The same for a single stretch. With a detector that drifts by 3 px, joint by joint, a person standing still gives at
# most 1.4 in 240 stretches; if all joints drift together, 1.9 in 99 % of them. On 180 stretches of drawn takes in step,
# offsets are wrong by up to 2.1 frames with minima of 2.0 to 2.7, and by 0.9 with sharper ones.
SHARP_ALONE = 2.7
# Misfits within this factor of the minimum are indistinguishable from it. On the demos, these are shifts within 0.3 to
# 0.6 frames; the offsets of halves of the footage differ by up to 0.9.
INDISTINCT = 1.05
# A smaller reduction of the misfit is noise: with all demo cameras in step, no shift of any camera reduces it.
MIN_GAIN = 0.05
# An offset with a larger uncertainty, in frames, counts as not measured.
CERTAIN = 2.0
# A joint counts in a run with at least this many frames: of a single one, nothing is left without its median, and its
# misfit of 0 px outweighs all others in the mean of logarithms.
MIN_FRAMES = 10
# Minimum number of observations for the median of a run.
MIN_OBSERVED = 100


@dataclass(frozen=True, eq=False)
class CameraTiming:
    """Timing of a camera relative to the others."""

    offset_frames: float
    """Frames by which it is late: it shows in frame k what the others showed in frame k - offset. NaN if it cannot be
    measured; the largest shift tried if the true one is larger."""
    uncertainty_frames: float
    """Half the range of shifts that fit about as well; infinite if the offset is not measured."""
    misfit_px: float
    """Misfit of motion alone, at the best shift."""
    unshifted_px: float
    """The same without a shift."""
    run_offsets: Float[Tensor, " R"]
    """Offset per run; NaN for a run without a sharp minimum."""
    drift_frames: float
    """Growth of the offset from the first to the last frame; NaN with fewer than three measured runs."""
    at_limit: bool
    """Whether the offset is the largest shift tried, or more."""

    def figures(self, spread: float, fps: float) -> dict[str, float]:
        """The numbers by name; `spread` is that of the runs' offsets, in frames."""
        return {
            "offset_frames": self.offset_frames,
            "uncertainty_frames": self.uncertainty_frames,
            "offset_s": self.offset_frames / fps,
            "offset_spread_frames": spread,
            "stretches": float(len(self.run_offsets)),
            "stretches_measured": float(self.run_offsets.isfinite().sum()),
            "drift_frames": self.drift_frames,
            "misfit_px": self.misfit_px,
            "unshifted_misfit_px": self.unshifted_px,
        }


@dataclass(frozen=True, eq=False)
class _Curve:
    """Misfit of one camera at each shift from -limit to limit; NaN if there is too little to compare."""

    misfit_px: Float[Tensor, " S"]
    """Misfit of all runs together."""
    by_run: Float[Tensor, "R S"]


def synchronised(
    sightings: Sightings, rig: CameraRig, limit: int
) -> tuple[tuple[CameraTiming, ...], Int[Tensor, "V R"]]:
    """The timing of every camera relative to the others, and the whole frames by which to shift each camera per run.

    One camera out of step spoils the reference of the others. Cameras are therefore shifted one at a time, the one with
    the largest gain first, and all are compared again. With two cameras only their difference is known; it is
    attributed to the second. Shifts go up to `limit` frames; runs shorter than three times that are not measurable.
    """
    shifts = torch.zeros(len(rig), int(sightings.run.max()) + 1, dtype=torch.long)
    judged = range(1, 2) if len(rig) == 2 else range(len(rig))
    for _ in range(len(rig)):
        moved = sightings.shifted(shifts)
        curves = {view: _curve(moved, rig, view, limit) for view in judged if not shifts[view].any()}
        gains = {view: _gain(curve) for view, curve in curves.items()}
        view = max(gains, key=lambda v: gains[v], default=0)
        if gains.get(view, 0.0) < MIN_GAIN:
            break
        shifts[view] = _steps(curves[view])
    timings = [CameraTiming(0.0, 0.0, torch.nan, torch.nan, torch.empty(0), torch.nan, False)] * len(rig)
    for view in judged:
        others = shifts.clone()
        others[view] = 0
        timings[view] = _timing(_curve(sightings.shifted(others), rig, view, limit))
    return tuple(timings), shifts


def _curve(sightings: Sightings, rig: CameraRig, view: int, limit: int) -> _Curve:
    """All shifts are compared on the same frames: those with neighbours as far as the largest shift."""
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
            rare = (~of_run[..., 0].isnan()).sum(dim=0) < MIN_FRAMES
            moving = (of_run - of_run.nanmedian(dim=0, keepdim=True).values).norm(dim=-1)
            moving[:, rare] = torch.nan
            by_run[r, i] = moving.nanmedian()
            count[r, i] = (~moving.isnan()).sum()
    return _Curve(_together(by_run, count), torch.where(count >= MIN_OBSERVED, by_run, torch.nan))


def _together(by_run: Float[Tensor, "R S"], count: Float[Tensor, "R S"]) -> Float[Tensor, " S"]:
    """Geometric mean weighted by observations, since every run has its own noise and one without motion is flat."""
    there = (count > 0).all(dim=1)
    by_run, count = by_run[there], count[there]
    mean = ((by_run.clamp_min(1e-9).log() * count).sum(dim=0) / count.sum(dim=0)).exp()
    return torch.where(count.sum(dim=0) >= MIN_OBSERVED, mean, torch.nan)


def _best(misfit: Float[Tensor, " S"]) -> int:
    return int(misfit.nan_to_num(torch.inf).argmin())


def _steps(curve: _Curve) -> Int[Tensor, " R"]:
    """Whole frames by which to shift each run: its own best shift, or that of all runs if it has no sharp minimum."""
    together = torch.tensor(_timing(curve).offset_frames).nan_to_num()
    own = _run_offsets(curve)
    return torch.where(own.isnan(), together, own).round().long()


def _gain(curve: _Curve) -> float:
    """Fraction by which the best shifts reduce the misfit."""
    limit = len(curve.misfit_px) // 2
    steps = _steps(curve)
    now, then = curve.by_run[:, limit], curve.by_run.gather(1, (steps + limit)[:, None])[:, 0]
    there = now.isfinite() & then.isfinite()
    return float(1.0 - then[there].sum() / now[there].sum()) if there.any() else 0.0


def _run_offsets(curve: _Curve) -> Float[Tensor, " R"]:
    """Offsets per run; NaN without a sharp minimum."""
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
    """Shift of minimum misfit, sub-frame by a parabola through three points, and half the range of similar misfits.

    NaN and infinity if the minimum is not sharp, since it is then due to noise.
    """
    limit = len(misfit) // 2
    best = _best(misfit)
    minimum = float(misfit[best])
    walls = misfit > sharp * minimum
    alike = (misfit <= INDISTINCT * minimum).nonzero()[:, 0].tolist()
    if not (misfit.isfinite().all() and walls[:best].any() and walls[best:].any()):
        return torch.nan, torch.inf
    left, right = alike[0], alike[-1]
    if left == 0 or right == 2 * limit:
        return torch.nan, torch.inf
    before, _, after = misfit[best - 1 : best + 2].tolist()
    bend = before - 2 * minimum + after
    offset = best - limit + (0.5 * (before - after) / bend if bend > 0 else 0.0)
    level = INDISTINCT * minimum
    start = left - float((level - misfit[left]) / (misfit[left - 1] - misfit[left]))
    stop = right + float((level - misfit[right]) / (misfit[right + 1] - misfit[right]))
    uncertainty = (stop - start) / 2
    return (offset, uncertainty) if uncertainty <= CERTAIN else (torch.nan, torch.inf)


def _drift(offsets: Float[Tensor, " R"]) -> float:
    """Median slope over all pairs of runs (Theil and Sen), times the number of runs between the first and the last."""
    there = offsets.isfinite().nonzero()[:, 0]
    if len(there) < 3:
        return torch.nan
    i, j = torch.combinations(there).T
    return float(((offsets[j] - offsets[i]) / (j - i)).median() * (len(offsets) - 1))
