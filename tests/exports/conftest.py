from tests.serving.conftest import bundle_path

__all__ = ["bundle_path"]
