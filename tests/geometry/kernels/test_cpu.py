"""What the compiled kernel promises beyond its numbers, which tests/geometry/test_triangulation.py compares."""

import os
import subprocess
import sys

import torch

from mvpose.geometry.triangulation import triangulate
from tests.geometry.rigs import ideal_pixels, people_points, ring


def test_importing_the_geometry_imports_neither_numba_nor_triton():
    code = "import sys, mvpose.geometry.robust; print('numba' in sys.modules, 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_forked_child_can_triangulate_after_its_parent_did():
    projections, points = ring(4).projections, people_points(30000)
    pixels = ideal_pixels(points, projections)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        triangulate(pixels, projections)
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            found = triangulate(pixels[:100], projections)
            close = float((found.points - points[:100]).abs().max()) < 1e-6
            os._exit(0 if close else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        torch.set_num_threads(threads)
