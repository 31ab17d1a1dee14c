from tests.serving.conftest import (
    bundle,
    bundle_path,
    bundle_with_image_stages,
    engine,
    images,
)

__all__ = ["bundle", "bundle_path", "bundle_with_image_stages", "engine", "images"]
