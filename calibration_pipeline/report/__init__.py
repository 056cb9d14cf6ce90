"""The calibration report: one self-contained HTML page, and its Markdown twin.

`content` defines the tables of a report, `document` arranges them into sections, `html` and `markdown` render
the same sections in two forms. The package reads and writes no files and estimates nothing.
"""

from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.document import report_pictures
from calibration_pipeline.report.html import render_html
from calibration_pipeline.report.markdown import render_markdown
from calibration_pipeline.report.pictures import archetype_pictures

__all__ = ["ReportContent", "archetype_pictures", "render_html", "render_markdown", "report_pictures"]
