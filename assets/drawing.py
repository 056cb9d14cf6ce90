"""Drawing the report's pictures in several processes: matplotlib keeps one core busy at a time."""

from concurrent.futures import ProcessPoolExecutor

from assets.pool import end_with_command, pool_context
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.report import ReportContent, report_pictures


def draw_pictures(content: ReportContent, settings: Settings) -> dict[str, bytes]:
    """Return the report's pictures by key: a share is drawn in this process, the others beside it.

    Parameters
    ----------
    content : ReportContent
    settings : Settings
        `processes`, of which at most one a kind of track draws: each loads the fits of all. A worker of Dask,
        which may start none, draws everything.
    """
    n = 1 if settings.executor == "dask" else min(settings.processes, len(ARCHETYPES))
    if n == 1:
        return report_pictures(content)
    with ProcessPoolExecutor(n - 1, mp_context=pool_context(), initializer=end_with_command) as pool:
        others = [pool.submit(report_pictures, content, share, n) for share in range(1, n)]
        pictures = report_pictures(content, 0, n)
        for other in others:
            pictures |= other.result()
    return pictures
