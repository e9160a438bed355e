"""What the compiled kernel promises beyond its numbers, which tests/geometry/test_triangulation.py compares."""

import os
import subprocess
import sys

import torch

from mvpose.geometry.triangulation import triangulate
from tests.geometry.rigs import ideal_pixels, people_points, ring


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


def test_a_new_process_compiles_nothing():
    """Every worker of a job would pay the compiler again: 1 to 7 s here, minutes in peers that compile at start."""
    projections, points = ring(4).projections, people_points(200)
    triangulate(ideal_pixels(points, projections), projections)  # compiled by now, if it never was
    code = (
        "from mvpose.geometry.kernels.cpu import forward\n"
        "from mvpose.geometry.triangulation import triangulate\n"
        "from tests.geometry.rigs import ideal_pixels, people_points, ring\n"
        "projections, points = ring(4).projections, people_points(200)\n"
        "triangulate(ideal_pixels(points, projections), projections)\n"
        "print(sum(forward.stats.cache_hits.values()), sum(forward.stats.cache_misses.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    hits, misses = map(int, done.stdout.split())
    assert hits >= 1 and misses == 0
