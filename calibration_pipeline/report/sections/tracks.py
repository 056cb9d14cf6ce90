"""Report section on one archetype: verdicts, reliability, scores, joint events."""

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.report.blocks import Gallery, Section, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.pictures import reliability_pictures, track_pictures
from calibration_pipeline.report.sections.joint import joint_event_blocks
from calibration_pipeline.report.sections.scores import metric_tables
from calibration_pipeline.report.sections.verdicts import section_anchor, verdict_blocks


def track_section(content: ReportContent, archetype: Archetype) -> Section:
    """Return the section on one archetype.

    Parameters
    ----------
    content : ReportContent
        The whole report's content.
    archetype : Archetype
        Archetype of the section.
    """
    blocks = verdict_blocks(content.verdicts.filter(archetype=archetype))
    metrics = content.metrics.filter(archetype=archetype)
    if metrics.is_empty():
        blocks.append(Text("No race of this archetype has been judged yet."))
    else:
        blocks += [
            Gallery(reliability_pictures(content.curves.filter(archetype=archetype))),
            Gallery(track_pictures(archetype, metrics, content.pit.filter(archetype=archetype))),
            *metric_tables(metrics),
        ]
    blocks += joint_event_blocks(content.joint_events.filter(archetype=archetype))
    return Section(section_anchor(archetype), archetype.label, blocks)
