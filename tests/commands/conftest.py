from tests.pipeline.conftest import findings_kept

__all__ = ["findings_kept"]
