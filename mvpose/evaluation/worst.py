"""Images of the samples with the largest error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.datasets.crops import CropConfig, cropped_samples
from mvpose.datasets.sample import Sample
from mvpose.evaluation.subject_errors import Evaluation, TruthTable
from mvpose.evaluation.summary import at_max_views
from mvpose.models.pinhole_crops import CropRule
from mvpose.report.comparison_sheet import Drawn
from mvpose.training.batches import CropView, projected, sample_arrays

VIEWS_DRAWN = 4
SIDE = 256
ON_PAGE = CropRule(size=(SIDE, SIDE), margin=1.4)


@dataclass(frozen=True, eq=False)
class Worst:
    """A row of an evaluation with its image."""

    row: int
    drawn: Drawn


def worst_samples(evaluation: Evaluation, tables: Sequence[TruthTable], count: int) -> list[Worst]:
    """At most `count` rows with the largest MPJPE, largest first. Reads the tables once more, for their images.

    VideoError, DatasetError or OSError if images cannot be read again.
    """
    rows = evaluation.rows
    errors = np.where(at_max_views(rows), rows.mpjpe_m.to_numpy(np.float64), np.nan)
    order = [int(i) for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])][:count]
    wanted = {(rows.benchmark[i], rows.capture[i], int(rows.frame[i]), int(rows.person[i])): i for i in order}
    found: dict[int, Worst] = {}
    for table in tables:
        for sample in table.samples() if len(found) < len(wanted) else ():
            key = (table.scoring.benchmark, sample.capture_id, sample.frame, sample.person)
            if key in wanted:
                found[wanted[key]] = Worst(wanted[key], _drawn(sample, evaluation, wanted[key]))
    return [found[i] for i in order if i in found]


def _drawn(sample: Sample, evaluation: Evaluation, row: int) -> Drawn:
    rows = evaluation.rows
    chosen = sample.select(tuple(rows.cameras[row])[:VIEWS_DRAWN])
    if any(image.crop is None and image.frame >= 0 for image in chosen.images):
        chosen = next(cropped_samples([chosen], CropConfig(side=SIDE)), chosen)
    view = CropView(skeleton=sample.skeleton, crop=ON_PAGE, views=len(chosen.rig))
    arrays = sample_arrays(chosen, view, np.random.default_rng(0))
    cameras = arrays["projections"].astype(np.float64)

    def pixels(joints: Float[np.ndarray, "J 3"]) -> Float[np.ndarray, "V J 2"]:
        known = np.isfinite(joints).all(axis=-1) & arrays["present"][:, None]
        xy, _, _ = projected(cameras, np.nan_to_num(joints), view.crop.size)
        return np.where(known[..., None], xy, np.nan)

    caption = (
        f"{1000 * rows.mpjpe_m[row]:.0f} mm  {sample.capture_id}, frame {sample.frame}, person {sample.person}, "
        f"{sample.action}: {', '.join(chosen.rig.names)}"
    )
    predicted = evaluation.predicted[row].astype(np.float64)
    return Drawn(caption, arrays["crops"].transpose(0, 2, 3, 1), pixels(sample.xyz), pixels(predicted), sample.skeleton)
