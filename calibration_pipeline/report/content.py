"""Content of a report: verdicts, tables and provenance, without text or layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.forecasters.folder import NETWORK, Form
from calibration_pipeline.schemas.comparison import ForecasterChances, Leaderboard
from calibration_pipeline.schemas.quarantine import Quarantine

ALL_ARCHETYPES = "all"
"""Value of the column archetype in `ReportContent.convergence`, for the pooled fits."""
QUARANTINE = ("season", "race", "place", "entity", "subject", "rule", "value", "consequence")
COLUMNS: dict[str, tuple[str, ...]] = {
    "verdicts": (
        "forecaster",
        "archetype",
        "era",
        "market",
        "verdict",
        "recalibration",
        "races_needed",
        "line",
        "forecast",
        "quantity",
        "level",
        "estimate",
        "lower",
        "upper",
        "n_races",
        "evidence",
    ),
    "metrics": (
        "archetype",
        "forecast",
        "quantity",
        "level",
        "reference",
        "estimate",
        "lower",
        "upper",
        "error_ratio",
        "monte_carlo_error",
        "n_races",
        "n_cars",
        "orientation",
        "estimator",
    ),
    "joint_events": (
        "archetype",
        "forecast",
        "event",
        "predicted",
        "observed",
        "lower",
        "upper",
        "calibration_error",
        "z",
        "p_value",
        "p_together",
        "gain",
        "gain_lower",
        "gain_upper",
        "about_dependence",
        "p_independent",
        "power_independent",
        "gain_over_raw",
        "gain_over_raw_lower",
        "gain_over_raw_upper",
        "n_races",
    ),
    "curves": (
        "archetype",
        "forecast",
        "event",
        "predicted",
        "predicted_from",
        "predicted_to",
        "observed",
        "lower",
        "upper",
        "n_cases",
        "n_races",
    ),
    "monitoring": (
        "archetype",
        "forecast",
        "market",
        "race_id",
        "season",
        "race_order",
        "rank",
        "log10_e_season",
        "log10_e_start",
    ),
    "pit": ("archetype", "forecast", "u", "ecdf", "lower", "upper"),
    "states": (
        "archetype",
        "season",
        "race_order",
        "n_calibration_races",
        *(f"slope{end}" for end in ("", "_lower", "_upper")),
    ),
    "slopes": ("archetype", "season", "estimate", "lower", "upper"),
    "convergence": ("archetype", "fold", "parameter", "r_hat", "ess_bulk", "ess_tail", "divergences"),
    "identification": ("archetype", "parameter", "mean", "lower", "upper", "contraction", "informed"),
    "predictive_checks": (
        "archetype",
        "statistic",
        "group",
        "observed",
        "mean",
        "lower",
        "upper",
        "tail_probability",
    ),
    "comparison": ("model", "elpd_diff", "dse", "p", "weight", "n_races", "worst_pareto_k"),
    "forecast": (
        "driver",
        "car_number",
        "start_position",
        *(f"{chance}{end}" for chance in ("win", "top5", "top10", "dnf") for end in ("", "_lower", "_upper")),
        "finish_median",
        "finish_lower",
        "finish_upper",
    ),
    "forecast_events": ("event", "predicted", "lower", "upper", "n_cases"),
    "quarantine": QUARANTINE,
    "forecaster_quarantine": ("forecaster", *QUARANTINE),
}


def empty_table(name: str) -> pl.DataFrame:
    """Return a table of `COLUMNS` without rows, for reports of a form that does not have it."""
    return pl.DataFrame(schema=list(COLUMNS[name]))


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Content of a report. A table without rows is reported as missing, never omitted silently.

    Attributes
    ----------
    title : str
        Heading of the page.
    source : str
        Source of the races, e.g. "simulated".
    form : Form
        Form of the forecasts. Sections that the form cannot give are left out.
    verdicts : polars.DataFrame
        `VerdictTable`; the report has a section for each archetype, in this order.
    metrics : polars.DataFrame
        `MetricTable`.
    joint_events : polars.DataFrame
        `JointEventTable`.
    skipped_events : mapping of str to str
        Joint events that could not be judged, with the reason.
    curves : polars.DataFrame
        `CalibrationCurves`.
    monitoring : polars.DataFrame
        `CalibrationMonitoring`.
    pit : polars.DataFrame
        archetype, forecast, u, ecdf, lower, upper: the distribution of the PIT, with a simultaneous band.
    states : polars.DataFrame
        Calibration slope, incident shift and front tilt before every race, as from `summaries.state_by_race`.
        The states of event probabilities have the column market, and those of probabilities no tilt.
    slopes : polars.DataFrame
        archetype, season, estimate, lower, upper: the calibration slope of each season.
    convergence : polars.DataFrame
        archetype (or a market, or `ALL_ARCHETYPES`), fold, parameter, r_hat, ess_bulk, ess_tail, divergences
        (of the fold's whole fit); null where a diagnostic could not be computed.
    identification : polars.DataFrame
        archetype, parameter, mean, lower, upper, contraction (1 - posterior variance / prior variance),
        informed (whether the contraction is large enough).
    predictive_checks : polars.DataFrame
        archetype, statistic, group (prior or posterior), observed, mean, lower, upper, tail_probability.
    fits : mapping of str to xarray.DataTree
        `CalibrationPosterior` by archetype, for the ArviZ plots.
    comparison : polars.DataFrame or None
        `ModelComparison`; None where the calibrations were not compared.
    forecast : polars.DataFrame or None
        `ForecastChances`: one row a car of the next race; None where no race is announced. Start positions
        are null where the grid is not set.
    forecast_events : polars.DataFrame or None
        `ForecastEvents` of the next race.
    forecast_title : str
        Name of the race of `forecast`.
    forecast_archetype : str
        Its archetype, '' where no race is announced.
    forecast_notes : sequence of str
        Notes on `forecast`, or the reason why there is none.
    forecaster_chances : polars.DataFrame
        `ForecasterChances`: the next race by every forecaster.
    leaderboard : polars.DataFrame
        `Leaderboard`.
    quarantine : polars.DataFrame
        `Quarantine` of all seasons.
    forecaster_quarantine : polars.DataFrame
        forecaster, and `Quarantine` of its files.
    warnings : sequence of str
        Implausible properties of the forecasts, a sentence each, for the first screen.
    provenance : mapping of str to str
        Source, seasons, seeds, versions, hashes: the inputs needed to reproduce the report.

    Raises
    ------
    ValueError
        If a table lacks a column.
    """

    title: str
    source: str
    form: Form = Form.SCENARIOS
    verdicts: pl.DataFrame
    metrics: pl.DataFrame
    joint_events: pl.DataFrame
    curves: pl.DataFrame
    monitoring: pl.DataFrame
    pit: pl.DataFrame
    states: pl.DataFrame
    slopes: pl.DataFrame
    convergence: pl.DataFrame
    identification: pl.DataFrame
    predictive_checks: pl.DataFrame
    fits: Mapping[str, xr.DataTree] = field(default_factory=dict)
    comparison: pl.DataFrame | None = None
    skipped_events: Mapping[str, str] = field(default_factory=dict)
    forecast: pl.DataFrame | None = None
    forecast_events: pl.DataFrame | None = None
    forecast_title: str = ""
    forecast_archetype: str = ""
    forecast_notes: Sequence[str] = ()
    forecaster_chances: pl.DataFrame = field(default_factory=ForecasterChances.empty)
    leaderboard: pl.DataFrame = field(default_factory=Leaderboard.empty)
    quarantine: pl.DataFrame = field(default_factory=Quarantine.empty)
    forecaster_quarantine: pl.DataFrame = field(default_factory=lambda: empty_table("forecaster_quarantine"))
    warnings: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns in COLUMNS.items():
            table = getattr(self, name)
            missing = [] if table is None else [column for column in columns if column not in table.columns]
            if missing:
                raise ValueError(f"Argument {name} lacks the columns {', '.join(missing)}.")

    @property
    def archetypes(self) -> list[Archetype]:
        """Archetypes of the report, in its order."""
        return [parse_archetype(name) for name in self.verdicts["archetype"].unique(maintain_order=True)]

    @property
    def is_of_network(self) -> bool:
        """Whether the forecasts are the network's; the fits of other forecasters are not known."""
        return NETWORK in self.verdicts["forecaster"]
