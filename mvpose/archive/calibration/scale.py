"""Whether the unit that a calibration was read in is confirmed by the people that come out of it."""

from __future__ import annotations

import math

from mvpose.archive.calibration.file_cameras import METRES, Unit
from mvpose.errors import CalibrationError

POSSIBLE_M = (0.6, 2.6)
"""A stature outside contradicts the unit, where another unit makes it one of `USUAL_M`: units differ by 2.54 and more,
and statures measured on clips of real people from toddlers to the tallest lie inside."""
USUAL_M = (1.0, 2.2)


def confirm_unit(stature_m: float, assumed_unit: Unit | None) -> None:
    """CalibrationError, naming the unit to give, if people of this height speak against the unit that was assumed.

    Nothing is checked where the user named the unit (`assumed_unit` None), where nobody's height could be measured
    (NaN), and where no unit makes the height a usual one: what is reconstructed may be small.
    """
    if not assumed_unit or math.isnan(stature_m) or POSSIBLE_M[0] <= stature_m <= POSSIBLE_M[1]:
        return
    others = {unit: stature_m / METRES[assumed_unit] * metres for unit, metres in METRES.items()}
    fitting = [unit for unit, height in others.items() if USUAL_M[0] <= height <= USUAL_M[1]]
    if not fitting:
        return
    heights = " or ".join(f"{others[unit]:.2f} m in {unit}" for unit in fitting)
    raise CalibrationError(
        f"the calibration was read in {assumed_unit}, and people come out {stature_m:.2f} m tall; they would be "
        f'{heights}. Set `unit = "{fitting[0]}"` in capture.toml, --catalogue.unit {fitting[0]}, or --unit '
        f"{fitting[0]} of `mvpose import` ({assumed_unit} if the people are that small)."
    )
