"""The calibration report: one self-contained HTML page, and its Markdown twin.

`content` says what a report is made of, `document` arranges it into sections, `html` and `markdown` write
the same sections in two forms. Nothing here reads or writes files, and nothing is estimated here.
"""

from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.document import report_pictures
from calibration_pipeline.report.html import render_html
from calibration_pipeline.report.markdown import render_markdown
from calibration_pipeline.report.pictures import archetype_pictures

__all__ = ["ReportContent", "archetype_pictures", "render_html", "render_markdown", "report_pictures"]
