"""Cameras, lenses and triangulation: pure torch, differentiable, batched, without files or settings.

Conventions, each verified by a test:

- World to camera is `x_camera = R x_world + t`; transforms are named `a_from_b` so that names cancel.
- Metres, seconds, pixels and radians. The world is Z-up; cameras have OpenCV's axes: +X right, +Y down, +Z forward.
- The centre of the top-left pixel is (0, 0). Resizing by s maps a pixel c to (c + 0.5) s - 0.5.
- Axis order is batch, views V, frames T, people P, joints J, coordinates last. Only `triangulate` takes the views
  directly before the coordinates (`... V 2`), because it sums over the views.
- A missing observation has weight 0; NaN never enters a gradient.
"""
