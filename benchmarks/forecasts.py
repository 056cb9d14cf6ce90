"""How good the network's forecasts are on a table of real results, beside baselines, season by season ahead.

    python -m benchmarks.forecasts --results cup_results.parquet --seasons 2018-2023

Prints Markdown tables; `--output` writes them to a file as well.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import xarray as xr

from benchmarks.evaluation import by_archetype, flatten, load_races, score, walk_forward
from calibration_pipeline.scenarios.structure import VARIANTS
from calibration_pipeline.verification.joint_events import joint_test, validate_events

SHOWN = {
    "spearman": "Spearman ρ",
    "crps_skill": "CRPS skill",
    "log_gain": "log gain, nats",
    "head_to_head_skill": "H2H skill",
    "head_to_head_slope": "H2H slope",
    "top10_skill": "top-10 skill",
    "win_skill": "win skill",
    "coverage_50": "50 %",
    "coverage_80": "80 %",
    "coverage_95": "95 %",
}


def markdown(title: str, scores: pl.DataFrame) -> str:
    """One table of a forecast: a row a group of races, estimates with the half-width of their interval."""
    lines = [
        f"### {title}",
        "",
        f"| races | n | {' | '.join(SHOWN.values())} |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for (group,), rows in scores.group_by("group", maintain_order=True):
        by = {row["quantity"]: row for row in rows.to_dicts()}
        cells = [
            f"{by[name]['estimate']:.3f} ± {(by[name]['upper'] - by[name]['lower']) / 2:.3f}"
            if name in by
            else "-"
            for name in SHOWN
        ]
        lines.append(f"| {group} | {rows['n_races'][0]} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def joint_events(title: str, ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> str:
    """One table of the default joint events: predicted and observed share of cases, by kind of track."""
    lines = [
        f"### {title}: joint events",
        "",
        "| races | event | predicted | observed | z |",
        "|---|---|---|---|---|",
    ]
    for kind, ensemble in by_archetype(ensembles).items():
        table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, results)
        for row in table.filter(forecast="raw").to_dicts():
            observed = f"{row['observed']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"
            z = "-" if row["z"] is None else f"{row['z']:.1f}"
            lines.append(f"| {kind} | `{row['event']}` | {row['predicted']:.3f} | {observed} | {z} |")
        test = joint_test(ensemble, results)
        lines.append(f"| {kind} | all together: p = {test.p_value:.3f} | | | {test.largest_z:.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", required=True, help="table of results, .parquet or .csv")
    parser.add_argument("--seasons", default="2018-2023", help="first and last season evaluated, 2018-2023")
    parser.add_argument("--scenarios", type=int, default=10_000, help="scenarios per race, 10000")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="networks, separated by commas")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    first, last = (int(year) for year in options.seasons.split("-"))
    features, results = load_races(options.results, last)
    parts = []
    for variant in options.variants.split(","):
        started = time.monotonic()
        seasons = range(first, last + 1)
        drawn = walk_forward(features, results, seasons, options.scenarios, VARIANTS[variant])
        ensembles = list(drawn)
        forecasts = flatten(ensembles, results)
        if not parts:
            parts.append(markdown("start order", score(forecasts["start order"])))
        parts.append(markdown(variant, score(forecasts["scenarios"])))
        parts.append(joint_events(variant, ensembles, results))
        print(f"{variant}: {time.monotonic() - started:.0f} s", flush=True)
    text = "\n".join(parts)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
