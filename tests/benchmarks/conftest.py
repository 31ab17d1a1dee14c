from tests.serving.conftest import bundle, bundle_path, engine

__all__ = ["bundle", "bundle_path", "engine"]
