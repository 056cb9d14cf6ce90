"""HTML renderer of the report: one self-contained page without network, scripts or other files."""

import base64
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.document import build_document
from calibration_pipeline.report.words import VERDICTS


def render_html(content: ReportContent, pictures: Mapping[str, bytes] | None = None) -> str:
    """Return the report as a self-contained HTML page.

    Parameters
    ----------
    content : ReportContent
        Verdicts, tables and provenance. All text is escaped.
    pictures : mapping of str to bytes, optional
        Figures of `report_pictures` that exist already.

    Returns
    -------
    str
        Styles are inline, figures are data URIs; light and dark follow the reader's system.
    """
    environment = Environment(
        loader=PackageLoader("calibration_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["data_uri"] = _data_uri
    template = environment.get_template("page.html.jinja")
    document = build_document(content)
    return template.render(document=document, verdict_words=VERDICTS, pictures=document.drawn(pictures))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
