import numpy as np
import torch

from mvpose.datasets.sample import TRAIN
from mvpose.rendering.takes import TakeConfig, rendered_take


def test_a_take_is_determined_by_its_index_and_shows_people_where_the_truth_says(assets):
    # Fails if a random state outside the take is used, or images and truth have different cameras.
    config = TakeConfig(assets=assets, views=3, frames=2, side=96, scene_people=1)
    take, again = rendered_take(config, TRAIN, 3), rendered_take(config, TRAIN, 3)
    assert all((a == b).all() for a, b in zip(take.images, again.images, strict=True))
    assert (take.joints == again.joints).all() and not (take.joints == rendered_take(config, TRAIN, 4).joints).all()
    for images, size in zip(take.images, take.rig.size.tolist(), strict=True):
        assert images.shape == (2, size[1], size[0], 3) and min(size) == 96
    pixels, before = take.rig.project(torch.from_numpy(take.joints))
    inside = (before & take.rig.inside(pixels)).numpy()
    moved = np.stack([np.abs(images[1].astype(int) - images[0]).max(axis=-1) for images in take.images])
    assert len(take.images) == 3 and inside[:, 1].any()
    near = [(v, *pixels[v, 1, 0, j].round().int().tolist()) for v, _, _, j in np.argwhere(inside[:, 1:])]
    assert np.mean([moved[v, y, x] for v, x, y in near]) > 2 * np.mean(moved)
