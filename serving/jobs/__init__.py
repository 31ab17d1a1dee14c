"""`POST /v1/jobs`: many images that are stored on disk and classified at low priority."""
