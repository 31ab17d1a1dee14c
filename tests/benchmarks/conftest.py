from tests.serving.conftest import bundle, bundle_path, engine, images

__all__ = ["bundle", "bundle_path", "engine", "images"]
