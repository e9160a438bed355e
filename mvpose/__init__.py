"""mvpose: 3D human poses from archives of calibrated, synchronised multi-view video.

The names below are the library's door. Each is imported from its own module when it is first used, so that
`import mvpose` loads neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvpose.errors import MvposeError
    from mvpose.footage.calibration import read_calibration
    from mvpose.footage.catalogue import find_captures
    from mvpose.geometry.triangulation import triangulate
    from mvpose.models.saved import load_model
    from mvpose.pipeline.job import reconstruct_archive
    from mvpose.pipeline.job_settings import ReconstructJob
    from mvpose.run.run_folder import RunFolder
    from mvpose.scenes import ring4

__all__ = [
    "MvposeError",
    "ReconstructJob",
    "RunFolder",
    "find_captures",
    "load_model",
    "read_calibration",
    "reconstruct_archive",
    "ring4",
    "triangulate",
]

_HOMES = {
    "MvposeError": "errors",
    "ReconstructJob": "pipeline.job_settings",
    "RunFolder": "run.run_folder",
    "find_captures": "footage.catalogue",
    "load_model": "models.saved",
    "read_calibration": "footage.calibration",
    "reconstruct_archive": "pipeline.job",
    "ring4": "scenes",
    "triangulate": "geometry.triangulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mvpose' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"mvpose.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
