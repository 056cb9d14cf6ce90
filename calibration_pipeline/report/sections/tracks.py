"""Report section on one archetype: verdict, reliability, scores, joint events."""

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.report.blocks import Block, Bullets, Gallery, Section, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.pictures import reliability_pictures, track_pictures
from calibration_pipeline.report.sections.joint import joint_event_blocks
from calibration_pipeline.report.sections.scores import metric_tables
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.verification.verdicts import Verdict


def track_section(content: ReportContent, verdict: Verdict) -> Section:
    """Return the section on one archetype.

    Parameters
    ----------
    content : ReportContent
        The whole report's content.
    verdict : Verdict
        Verdict on the archetype.
    """
    archetype = parse_archetype(verdict.archetype)
    words = VERDICTS[verdict.verdict]
    blocks: list[Block] = [Text(words.meaning), Bullets(verdict.evidence)]
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
    return Section(archetype.value.replace("_", "-"), archetype.label, blocks, verdict.verdict)
