"""The figures of PSM and RPSM on maps of known noise, beside the most likely joints."""

import json

import numpy as np
import pytest

from mvpose.benchmarks.pictorial_precision import DLT, LIMIT, PSM, PictorialBenchmark, errors_mm, run, walk_maps

SMALL = PictorialBenchmark(people=3, frames=2, noise_px=(0.5, 1.0), rounds=(0, 10))


def test_rpsm_cuts_the_error_of_psm_and_comes_close_to_the_most_likely_joints(tmp_path, capsys):
    """Fails if a round halves nothing, or a figure is that of another method or level of noise."""
    found = run(PictorialBenchmark(**vars(SMALL) | {"json": str(tmp_path / "figures.json")}))
    half, whole = found["0.5"], found["1"]
    last = "RPSM, 10 rounds"
    assert half["reduction against PSM"]["mean"] > 0.6
    assert 0.0 < whole["above the most likely joints"]["mean"] < 0.1
    assert 1.8 < whole[LIMIT]["mean"] / half[LIMIT]["mean"] < 2.2
    assert half[LIMIT]["mean"] < half[last]["mean"] < half[PSM]["mean"] and half[DLT]["mean"] < half[PSM]["mean"]
    assert half["reduction against PSM"]["mean"] == pytest.approx(1 - half[last]["mean"] / half[PSM]["mean"], abs=0.03)
    assert json.loads((tmp_path / "figures.json").read_text())["figures"] == found
    assert "noise of 0.5 px" in capsys.readouterr().out


def test_maps_are_drawn_about_pixels_that_are_off_by_the_stated_noise():
    """Fails if noise is in pixels of the crop, all people are one, or maps show other pixels than the limit gets."""
    walks, exact = walk_maps(SMALL, 1.0), walk_maps(SMALL, 0.0)
    assert (walks.pixels - exact.pixels).std().item() == pytest.approx(1.0, abs=0.05)
    assert len(set(walks.person)) == 3 and (exact.joints[0] - exact.joints[2]).norm(dim=-1).min() > 0.05
    spread = exact.pixels.amax(dim=2) - exact.pixels.amin(dim=2)
    np.testing.assert_allclose(spread.amax(dim=-1), 64 / 1.4, rtol=1e-6)
    assert errors_mm(exact, (0,))[LIMIT].max() < 1e-3
