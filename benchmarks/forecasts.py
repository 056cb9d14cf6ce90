"""How good the network's forecasts are on a table of real results, beside baselines, season by season ahead.

    python -m benchmarks.forecasts --results cup_results.parquet --seasons 2018-2023

Prints Markdown tables; `--output` writes them to a file as well. With `--recalibrated`, the full network is
recalibrated by fits on the seasons before, and its joint events are held against the raw forecast's.
"""

import time
from collections.abc import Sequence

import polars as pl
import xarray as xr

from benchmarks.evaluation import (
    OVALS,
    by_archetype,
    draw_seasons,
    flatten,
    load_races,
    options_parser,
    publish,
    score,
    walk_networks,
)
from benchmarks.recalibration import draw_again
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.structure import VARIANTS
from calibration_pipeline.verification.joint_events import validate_events

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


SLOPE_BANDS = {
    "superspeedway": (0.55, 1.5),
    "intermediate": (0.88, 1.10),
    "short_track": (0.90, 1.10),
    "road_course": (0.83, 1.15),
}
"""Where the head-to-head slope is to lie."""
COVERAGE_LIMITS = dict.fromkeys(SLOPE_BANDS, (0.03, 0.02, 0.01)) | {OVALS: (0.015, 0.010, 0.006)}
"""How far coverage of the central 50, 80 and 95 % intervals may be off."""


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


def goals(title: str, scores: pl.DataFrame) -> str:
    """One table of the goals for slope and coverage: estimates with 95 % intervals, those missed in bold."""
    rows = {(row["group"], row["quantity"]): row for row in scores.to_dicts()}

    def cell(group: str, quantity: str, lowest: float, highest: float) -> str:
        row = rows[group, quantity]
        text = f"{row['estimate']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"
        return text if lowest <= row["estimate"] <= highest else f"**{text}**"

    lines = [
        f"### {title}: goals",
        "",
        "| races | H2H slope | band | 50 % | 80 % | 95 % | off by at most |",
        "|---" * 7 + "|",
    ]
    for group, limits in COVERAGE_LIMITS.items():
        if (group, "coverage_50") not in rows:
            continue
        band = SLOPE_BANDS.get(group)
        slope = f"{cell(group, 'head_to_head_slope', *band)} | {band[0]}-{band[1]}" if band else " | "
        cells = [
            cell(group, f"coverage_{level}", level / 100 - off, level / 100 + off)
            for level, off in zip((50, 80, 95), limits, strict=True)
        ]
        lines.append(f"| {group} | {slope} | {' | '.join(cells)} | {'/'.join(map(str, limits))} |")
    return "\n".join([*lines, ""])


def joint_events(
    title: str, raw: Sequence[xr.Dataset], recalibrated: Sequence[xr.Dataset], results: pl.DataFrame
) -> str:
    """One table of the default joint events, by kind of track: raw and recalibrated, if they differ."""
    forecasts = ["raw"] if recalibrated is raw else ["raw", "recalibrated"]
    lines = [
        f"### {title}: joint events",
        "",
        "| races | event | forecast | predicted | observed | z | p | over raw, nats a race |",
        "|---" * 8 + "|",
    ]
    again = by_archetype(recalibrated)
    for kind, ensemble in by_archetype(raw).items():
        table, _ = validate_events({"raw": ensemble, "recalibrated": again[kind]}, results)
        of_kind = table.filter(pl.col("forecast").is_in(forecasts))
        for row in of_kind.sort("event", maintain_order=True).to_dicts():
            observed = f"{row['observed']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"
            z = "-" if row["z"] is None else f"{row['z']:.1f}"
            predicted, p = f"{row['predicted']:.3f}", f"{row['p_value']:.3f}"
            cells = [
                kind,
                f"`{row['event']}`",
                row["forecast"],
                predicted,
                observed,
                z,
                p,
                gain_over_raw(row),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        for row in of_kind.unique("forecast", maintain_order=True).to_dicts():
            p = f"{row['p_together']:.3f}"
            lines.append(f"| {kind} | all together | {row['forecast']} | | | | {p} | |")
    return "\n".join([*lines, ""])


def gain_over_raw(row: dict[str, float | None]) -> str:
    """The gain of a row of the table of joint events over the raw forecast, with its interval."""
    values = [row[name] for name in ("gain_over_raw", "gain_over_raw_lower", "gain_over_raw_upper")]
    gain, lower, upper = ("-" if value is None else f"{value:+.3f}" for value in values)
    return "" if row["gain_over_raw"] is None else f"{gain} [{lower}, {upper}]"


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, "2018-2023", 10_000)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="networks, separated by commas")
    parser.add_argument("--recalibrated", action="store_true", help="recalibrate the full network as well")
    options = parser.parse_args()
    use_host_devices()
    features, results = load_races(options.results, options.seasons[-1])
    parts: list[str] = []
    for variant in options.variants.split(","):
        started = time.monotonic()
        networks = walk_networks(features, results, options.seasons, VARIANTS[variant], options.cache)
        ensembles = draw_seasons(features, networks, options.scenarios)
        forecasts = flatten(ensembles, results)
        if not parts:
            parts.append(markdown("start order", score(forecasts["start order"])))
        scores = score(forecasts["scenarios"])
        parts += [markdown(variant, scores), goals(variant, scores)]
        parts.append(joint_events(variant, ensembles, ensembles, results))
        print(f"{variant}: {time.monotonic() - started:.0f} s", flush=True)
    if options.recalibrated:
        walk = features["season"].unique().sort().to_list()[1:]
        networks = walk_networks(features, results, walk, cache=options.cache)
        drawn = draw_seasons(features, networks, options.scenarios)
        again = draw_again(features, networks, drawn, results, options.seasons)
        scores = score(flatten(again, results)["scenarios"])
        parts += [markdown("full, recalibrated", scores), goals("full, recalibrated", scores)]
        raw = [one for season, one in zip(walk, drawn, strict=True) if season in options.seasons]
        parts.append(joint_events("full, recalibrated", raw, again, results))
    publish("\n".join(parts), options.output)


if __name__ == "__main__":
    main()
