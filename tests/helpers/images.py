"""PNG images in tests: their size, after a check that the image is whole and not blank."""

import io

from PIL import Image


def image_size(png: bytes) -> tuple[int, int]:
    """Decode an image that must have more than one colour; return its width and height, pixels."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        colours = image.convert("RGB").getcolors(maxcolors=256)
        assert colours is not None
        assert len(colours) > 1
        return image.size
