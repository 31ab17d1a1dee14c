"""Whether the images that calibrate look like those that the last network was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# A network is right on nearly all images that it was trained on, and on fewer new ones. Of fewer images
# than these, all may be right by chance.
SEEN_ACCURACY = 0.995
MIN_IMAGES = 100


def warn_if_seen(
    accuracy: float, images: int, network: Path, remedy: str, say: Callable[[str], None]
) -> None:
    """Warn if `network` is right on the share `accuracy` of `images` labelled images that calibrate, as
    it is on those that it was trained on. `remedy` is what to do then."""
    if accuracy < SEEN_ACCURACY or images < MIN_IMAGES:
        return
    say(
        f"warning: {network} is right on {100 * accuracy:.2f} % of the {images:,} images that calibrate. "
        "If it was trained on them, or on others of the same scenes, the policy saves less on new images "
        f"than on these, and the certificate does not hold for new ones: {remedy}."
    )
