"""Scores of the network's forecasts on a table of real results, beside baselines, walk-forward by season.

    python -m benchmarks.forecasts --results cup_results.parquet --seasons 2018-2023

It writes benchmarks/results/forecast_scores.csv, forecast_goals.csv and forecast_joint_events.csv. With
`--recalibrated`, fits on earlier seasons also recalibrate the full network, and its joint events are compared
with those of the raw forecast.
"""

import time
from collections.abc import Iterator, Sequence

import polars as pl
import xarray as xr

from benchmarks.evaluation import (
    OVALS,
    Forecasts,
    by_archetype,
    draw_seasons,
    flatten,
    load_races,
    options_parser,
    score,
    season_text,
    walk_networks,
)
from benchmarks.recalibration import recalibrate_seasons
from benchmarks.result_files import Row, markdown_table, write_results
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.structure import VARIANTS
from calibration_pipeline.verification.joint_events import validate_events

SLOPE_BANDS = {
    "superspeedway": (0.55, 1.5),
    "intermediate": (0.88, 1.10),
    "short_track": (0.90, 1.10),
    "road_course": (0.83, 1.15),
}
"""Archetype -> goal for the head-to-head slope."""
SKILL_GOALS = {
    "crps_skill": (0.012, 0.125, 0.205, 0.14),
    "head_to_head_skill": (0.0, 0.035, 0.1, 0.085),
    "top10_skill": (0.03, 0.165, 0.235, 0.18),
}
"""Quantity -> smallest skill, in the order of the archetypes of `SLOPE_BANDS`."""
COVERAGE_LIMITS = dict.fromkeys(SLOPE_BANDS, (0.03, 0.02, 0.01)) | {OVALS: (0.015, 0.010, 0.006)}
"""Races -> largest error of the coverage of the central 50, 80 and 95 % intervals."""
FORECAST_KEY = ("seasons", "scenarios", "forecast")
EVENT_KEY = ("seasons", "scenarios", "network")


def goals() -> Iterator[tuple[str, str, float, float | None]]:
    """Yield races, quantity, and the smallest and largest value that meet the goal."""
    for quantity, smallest in SKILL_GOALS.items():
        for archetype, lowest in zip(SLOPE_BANDS, smallest, strict=True):
            yield archetype, quantity, lowest, None
    for archetype, band in SLOPE_BANDS.items():
        yield archetype, "head_to_head_slope", *band
    for races, limits in COVERAGE_LIMITS.items():
        for level, off in zip((50, 80, 95), limits, strict=True):
            yield races, f"coverage_{level}", level / 100 - off, level / 100 + off


def score_rows(scores: pl.DataFrame) -> list[Row]:
    """Return the rows of `forecast_scores` for a table of `evaluation.score`."""
    return [
        {
            "races": row["group"],
            "n_races": row["n_races"],
            "quantity": row["quantity"],
            "estimate": f"{row['estimate']:.3f}",
            "half_width": f"{(row['upper'] - row['lower']) / 2:.3f}",
        }
        for row in scores.to_dicts()
    ]


def goal_rows(scores: pl.DataFrame) -> list[Row]:
    """Return the rows of `forecast_goals`: goal, estimate with interval, and whether it is met."""
    found = {(row["group"], row["quantity"]): row for row in scores.to_dicts()}
    rows: list[Row] = []
    for races, quantity, lowest, highest in goals():
        if row := found.get((races, quantity)):
            met = lowest <= row["estimate"] and (highest is None or row["estimate"] <= highest)
            rows.append(
                {
                    "races": races,
                    "quantity": quantity,
                    "goal_lowest": f"{lowest:g}",
                    "goal_highest": "" if highest is None else f"{highest:g}",
                    "estimate": f"{row['estimate']:.3f}",
                    "estimate_lower": f"{row['lower']:.3f}",
                    "estimate_upper": f"{row['upper']:.3f}",
                    "met": str(met).lower(),
                }
            )
    return rows


def event_rows(
    raw: Sequence[xr.Dataset], recalibrated: Sequence[xr.Dataset], results: pl.DataFrame
) -> list[Row]:
    """Return the rows of `forecast_joint_events`, by archetype: raw, and recalibrated if that differs."""
    forecasts = ["raw"] if recalibrated is raw else ["raw", "recalibrated"]
    mapped = by_archetype(recalibrated)
    rows: list[Row] = []
    for archetype, ensemble in by_archetype(raw).items():
        table, _ = validate_events({"raw": ensemble, "recalibrated": mapped[archetype]}, results)
        chosen = table.filter(pl.col("forecast").is_in(forecasts)).sort("event", maintain_order=True)
        rows += [
            {
                "races": archetype,
                "event": row["event"],
                "forecast": row["forecast"],
                "predicted": f"{row['predicted']:.3f}",
                "observed": f"{row['observed']:.3f}",
                "observed_lower": f"{row['lower']:.3f}",
                "observed_upper": f"{row['upper']:.3f}",
                "z": "" if row["z"] is None else f"{row['z']:.1f}",
                "p": f"{row['p_value']:.3f}",
                "p_together": f"{row['p_together']:.3f}",
                **{
                    f"gain{end}": "" if (gain := row[f"gain_over_raw{end}"]) is None else f"{gain:.3f}"
                    for end in ("", "_lower", "_upper")
                },
            }
            for row in chosen.to_dicts()
        ]
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, "2018-2023", 10_000)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="networks, separated by commas")
    parser.add_argument("--recalibrated", action="store_true", help="recalibrate the full network as well")
    options = parser.parse_args()
    use_host_devices()
    features, results = load_races(options.results, options.seasons[-1])
    run: Row = {"seasons": season_text(options.seasons), "scenarios": options.scenarios}

    def write(name: str, rows: Sequence[Row], key: Sequence[str], label: str) -> None:
        labelled = [{**run, key[-1]: label, **row} for row in rows]
        print(markdown_table(labelled), end="\n\n", flush=True)
        write_results(name, labelled, options.output, key)

    def write_scores(label: str, forecasts: Forecasts) -> pl.DataFrame:
        scores = score(forecasts)
        write("forecast_scores", score_rows(scores), FORECAST_KEY, label)
        return scores

    for number, variant in enumerate(options.variants.split(",")):
        started = time.monotonic()
        networks = walk_networks(features, results, options.seasons, VARIANTS[variant], options.cache)
        ensembles = draw_seasons(features, networks, options.scenarios)
        forecasts = flatten(ensembles, results)
        if not number:
            write_scores("start order", forecasts["start order"])
        scores = write_scores(variant, forecasts["scenarios"])
        write("forecast_goals", goal_rows(scores), FORECAST_KEY, variant)
        write("forecast_joint_events", event_rows(ensembles, ensembles, results), EVENT_KEY, variant)
        print(f"{variant}: {time.monotonic() - started:.0f} s", flush=True)
    if options.recalibrated:
        walk = features["season"].unique().sort().to_list()[1:]
        networks = walk_networks(features, results, walk, cache=options.cache)
        drawn = draw_seasons(features, networks, options.scenarios)
        recalibrated = recalibrate_seasons(features, networks, drawn, results, options.seasons)
        scores = write_scores("full, recalibrated", flatten(recalibrated, results)["scenarios"])
        write("forecast_goals", goal_rows(scores), FORECAST_KEY, "full, recalibrated")
        raw = [ensemble for season, ensemble in zip(walk, drawn, strict=True) if season in options.seasons]
        write("forecast_joint_events", event_rows(raw, recalibrated, results), EVENT_KEY, "full")


if __name__ == "__main__":
    main()
