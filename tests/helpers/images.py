"""PNG images in tests: their size, after a check that the image is whole and not blank."""

import io

from matplotlib.figure import Figure
from PIL import Image


def image_size(png: bytes) -> tuple[int, int]:
    """Decode an image that must have more than one colour; return its width and height, pixels."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        colours = image.convert("RGB").getcolors(maxcolors=256)
        assert colours is not None
        assert len(colours) > 1
        return image.size


def assert_on_paper(figure: Figure) -> None:
    """Assert that nothing is cut at the figure's edge, and that no label of an axis covers tick labels."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
            if axis.label.get_text() and axis.label.get_visible():
                of_axis = axis.label.get_window_extent()
                assert not [label for label in ticks if label.get_window_extent().overlaps(of_axis)]
    paper, ink = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert ink.x0 >= paper.x0
    assert ink.y0 >= paper.y0
    assert ink.x1 <= paper.x1
    assert ink.y1 <= paper.y1
