"""Decodes image files to the pixels that a network takes, for training and serving alike."""

from offramp.images.decoder import MIN_DRAFT_SCALE, ImageSpec, Pixels, decode, decode_whole

__all__ = ["MIN_DRAFT_SCALE", "ImageSpec", "Pixels", "decode", "decode_whole"]
