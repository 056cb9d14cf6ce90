"""The jobs: a whole run is a few waves of jobs, in this order.

A wave is stored as a whole before the next begins. The jobs of a wave, the longest first, read nothing of
each other, and each run of a job has one partition. The command, the UI, the schedules and the sensor use
these jobs.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import dagster as dg

REPORT = "calibration_report"


class Job(NamedTuple):
    """A job: the assets of one partitions definition that are materialized together."""

    name: str
    assets: tuple[str, ...]
    description: str


INGEST = Job(
    "ingest",
    ("lap_telemetry", "race_results", "quarantine", "simulated_truth", "lap_aggregates"),
    "Reads a season's results and laps from the source, and aggregates the laps.",
)
OF_PROBABILITIES = (
    *("{}_probabilities", "{}_quarantine", "{}_posterior", "{}_state"),
    *("recalibrated_{}s", "{}_verdict", "next_{}s"),
)
WAVES: tuple[tuple[Job, ...], ...] = (
    (Job("tracks", ("track_constraints",), "Compiles the track catalogue."),),
    (INGEST,),
    (Job("features", ("driver_features",), "Builds the features of a season's cars from earlier races."),),
    (Job("networks", ("fold_history", "causal_network"), "Fits a season's causal networks."),),
    (
        Job(
            "scenarios",
            ("scenario_ensemble", "scenario_quarantine", "race_curves"),
            "Draws a season's scenarios from the network or reads a user's, and tabulates their likelihood.",
        ),
    ),
    (
        *(
            Job(
                f"{noun}s",
                tuple(asset.format(noun) for asset in OF_PROBABILITIES),
                f"Recalibrates and judges the {noun} probabilities of a forecaster.",
            )
            for noun in ("position", "event")
        ),
        Job(
            "state",
            ("pooled_posterior", "calibration_state"),
            "Fits a forecaster's archetypes together, and filters the state before every race.",
        ),
        Job(
            "archetypes",
            ("archetype_races", "calibration_posterior"),
            "Joins the forecasts of an archetype over all seasons, and fits their sharpness.",
        ),
    ),
    (
        Job(
            "scores",
            (
                "archetype_state",
                "recalibrated_forecast",
                "backtest",
                "calibration_metrics",
                "calibration_curves",
                "joint_event_validation",
                "calibration_monitoring",
                "verdict",
            ),
            "Recalibrates, scores and judges the forecasts of an archetype.",
        ),
        Job(
            "forecast",
            ("race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios"),
            "Forecasts the next race.",
        ),
        Job("models", ("model_comparison",), "Compares the calibrations of a forecaster."),
    ),
    (
        Job(
            "comparison",
            ("blend_weights", "market_scores", "leaderboard", "forecaster_chances", "blend_forecast"),
            "Compares all forecasters, and blends them.",
        ),
        Job("pictures", ("report_pictures",), "Draws the pictures of an archetype in the report."),
    ),
    (Job("report", (REPORT, "catalogue"), "Writes the report and the catalogue of views."),),
)


def build_jobs(assets: Iterable[dg.AssetsDefinition]) -> dict[str, Any]:
    """Return the jobs by name, over those of their assets that are in the graph."""
    keys = {key.path[-1]: key for asset in assets for key in asset.keys}
    return {
        job.name: dg.define_asset_job(
            job.name,
            selection=dg.AssetSelection.assets(*(keys[name] for name in job.assets if name in keys)),
            description=job.description,
        )
        for wave in WAVES
        for job in wave
    }
