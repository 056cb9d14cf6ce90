"""A run is killed at random moments of every stage; the next one carries on from what was finished."""

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from calibration_pipeline.io.files import LEFTOVER
from faults.bench import ALL, ARCHETYPE, LONGEST_S, SEASONS, Bench, in_the_soak_alone
from faults.ledger import Ledger

SEED = 20261127
SEASON = SEASONS[-1]
POLL_S = 0.02
KILLS = 3
"""Kills of a step in the soak: two at random moments, one at the write; the sample has the last of two."""
ENDED = "none: the run was faster"
SAMPLE = ("season", "driver_features")
STEPS = {
    "track_constraints": ("track_constraints.parquet",),
    "season": (f"lap_telemetry/{SEASON}.parquet", f"race_results/{SEASON}.parquet"),
    "lap_aggregates": (f"lap_aggregates/{SEASON}.parquet",),
    "driver_features": (f"driver_features/{SEASON}.parquet",),
    "fold_history": (f"fold_history/{SEASON}.parquet",),
    "causal_network": (f"causal_network/{SEASON}.nc",),
    "season_scenarios": (
        f"scenario_ensemble/network/{SEASON}.nc",
        f"scenario_quarantine/network/{SEASON}.parquet",
    ),
    "race_curves": (f"race_curves/network/{SEASON}.nc",),
    **{
        name: (f"{name}/{ARCHETYPE}/network.nc",)
        for name in (
            "archetype_races",
            "calibration_posterior",
            "archetype_state",
            "recalibrated_forecast",
            "backtest",
        )
    },
    **{
        name: (f"{name}/{ARCHETYPE}/network.parquet",)
        for name in (
            "joint_event_validation",
            "calibration_curves",
            "calibration_metrics",
            "calibration_monitoring",
            "verdict",
            "report_pictures",
        )
    },
    "next_race": (
        "race_forecast/network.nc",
        *(f"forecast_{table}/network.parquet" for table in ("chances", "events", "scenarios")),
    ),
    **{name: (f"{name}/network.nc",) for name in ("pooled_posterior", "calibration_state")},
    "model_comparison": ("model_comparison/network.parquet",),
    "calibration_report": ("calibration_report.*",),
    "catalogue": ("catalogue.duckdb",),
}
"""Steps of the graph and the files that each writes."""


def events(database: Path) -> list[tuple[float, str, str]]:
    """Return the events of a run as recorded so far: time, type and step; none where it is being made."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT json_extract(event, '$.timestamp'), dagster_event_type, step_key FROM event_logs"
                " WHERE step_key IS NOT NULL ORDER BY id"
            )
            return list(rows)
    except sqlite3.OperationalError:
        return []


def databases(bench: Bench) -> set[Path]:
    return set((bench.home / "history" / "runs").glob("*-*.db"))


def durations(bench: Bench) -> dict[str, float]:
    """Return how many seconds each step took in the runs of a bench, the longest of its partitions."""
    took: dict[str, float] = {}
    for database in databases(bench):
        started: dict[str, float] = {}
        for at, kind, step in events(database):
            if kind == "STEP_START":
                started[step] = at
            elif kind == "STEP_SUCCESS":
                took[step] = max(took.get(step, 0.0), at - started[step])
    return took


def kill(bench: Bench, step: str, is_time: Callable[[], bool], earlier: Sequence[str] = ()) -> str:
    """Start an update of the assets of a step and of earlier steps; kill it once that step has begun.

    Return the step in which it died.
    """
    before = databases(bench)
    names = {Path(file).parts[0].split(".")[0] for name in (step, *earlier) for file in STEPS[name]}
    process = bench.start("--update", "--select", ",".join(sorted(names)), "--archetypes", ARCHETYPE)
    end = time.monotonic() + LONGEST_S

    def recorded() -> list[tuple[float, str, str]]:
        return sorted(event for database in databases(bench) - before for event in events(database))

    def wait_until(reached: Callable[[], bool]) -> None:
        while process.poll() is None and not reached():
            assert time.monotonic() < end, f"{step} was not reached"
            time.sleep(POLL_S)

    wait_until(lambda: any(kind == "STEP_START" and name == step for _, kind, name in recorded()))
    wait_until(is_time)
    process.kill()
    out, _ = process.communicate()
    assert "Traceback" not in out, out
    assert process.returncode in (0, -9), out
    begun = [name for _, kind, name in recorded() if kind == "STEP_START"]
    assert begun, out
    return begun[-1] if process.returncode == -9 else ENDED


def after(delay_s: float) -> Callable[[], bool]:
    """Return a function that is true from `delay_s` seconds after its first call."""
    asked: list[float] = []

    def is_time() -> bool:
        asked.append(time.monotonic())
        return asked[-1] - asked[0] >= delay_s

    return is_time


def at_the_write(bench: Bench, files: tuple[str, ...], delay_s: float) -> Callable[[], bool]:
    """Return a function that is true once a step has begun to write a file, `delay_s` seconds later."""
    patterns = [f"{head}{slash}{dot}{name}" for file in files for dot in (".", "")
                for head, slash, name in [file.rpartition("/")]]  # fmt: skip
    patterns = [
        f"{pattern}*.tmp" if pattern.rpartition("/")[2].startswith(".") else pattern for pattern in patterns
    ]
    waited = after(delay_s)
    return lambda: any(any(bench.store.glob(pattern)) for pattern in patterns) and waited()


def test_a_killed_run_loses_nothing_and_the_next_carries_on(
    bench: Bench, undisturbed: Bench, ledger: Ledger
) -> None:
    """Each run finishes the steps before it and is killed one step later."""
    draw = random.Random(f"{SEED} {undisturbed.select}")  # noqa: S311
    took = durations(undisturbed)
    is_soak = undisturbed.select == ALL
    steps = {step: files for step, files in STEPS.items() if is_soak or step in SAMPLE}
    assert steps.keys() <= took.keys()
    died = 0
    for number, (step, files) in enumerate(steps.items()):
        for n in reversed(range(KILLS if is_soak else 1)):
            delay_s = draw.uniform(0, took[step] if n else 0.03)
            while True:
                bench.lose(*files)
                moment = after(delay_s) if n else at_the_write(bench, files, delay_s)
                where = kill(bench, step, moment, list(steps)[:number])
                if where != ENDED:
                    break
                delay_s /= 2  # it was faster than the undisturbed run, which had to compile
            died += 1
            ledger.log(f"{step}: killed in {where}")
            bench.assert_readable()
            assert bench.unlike_records() == set(), "the same content is the same version"
    bench.update()
    # A killed writer leaves a half-written file, which a later writer removes once it is an hour old.
    for path in bench.store.rglob(".*"):
        assert LEFTOVER.fullmatch(path.name), path
        path.unlink()
    bench.assert_mended(undisturbed)
    ledger.enter("SIGKILL", f"{len(steps)} steps, one after the other", died, "died; the next run carried on")


@in_the_soak_alone
def test_a_run_that_is_killed_with_new_values_leaves_nothing_stale(
    bench: Bench, undisturbed: Bench, ledger: Ledger, tmp_path: Path
) -> None:
    """The feed corrects a season. However far the run came that reads it, the update names what is stale."""
    draw = random.Random(f"{SEED} corrected")  # noqa: S311
    corrected = bench.copied(tmp_path / "corrected", CALIBRATION_FEED_URL=str(tmp_path / "feed"))
    correct(undisturbed.feed, tmp_path / "feed")
    ingest = ("--select", "race_results,lap_telemetry")
    assert corrected.run(*ingest).code == 0
    assert "read another version of" in corrected.update("--select", "+driver_features").out
    for n in range(4):
        victim = bench.copied(tmp_path / f"victim{n}", CALIBRATION_FEED_URL=str(tmp_path / "feed"))
        written = victim.store / "race_results" / f"{SEASONS[0]}.parquet"
        old = written.read_bytes()
        process = victim.start(*ingest)
        while process.poll() is None and written.read_bytes() == old:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        victim.assert_readable()
        behind = victim.unlike_records()
        assert victim.run(*ingest, "--update").code == 0
        assert victim.run(*ingest).code == 0
        out = victim.update("--select", "+driver_features").out
        assert "driver_features [2024] read another version of race_results [2024]" in out
        for name in ("race_results", "lap_telemetry", "lap_aggregates", "driver_features"):
            for season in SEASONS:
                file = f"{name}/{season}.parquet"
                assert (victim.store / file).read_bytes() == (corrected.store / file).read_bytes(), file
        ledger.enter(
            "SIGKILL", "a corrected season, at its write", 1, "died; the update named what was stale"
        )
        ledger.log(f"not recorded when killed: {', '.join(sorted(behind)) or 'nothing'}")


def correct(feed: Path, target: Path) -> None:
    """Write a copy of the feed with the first two cars of the first race swapped."""
    import json
    import shutil

    shutil.copytree(feed, target)
    document = sorted((target / str(SEASONS[0]) / "1").glob("*/weekend-feed.json"))[0]
    weekend = json.loads(document.read_text())
    results = weekend["weekend_race"][0]["results"]
    first, second = sorted(results, key=lambda car: car["finishing_position"])[:2]
    first["finishing_position"], second["finishing_position"] = 2, 1
    weekend["weekend_race"][0]["winner_driver_id"] = second["driver_id"]
    document.write_text(json.dumps(weekend))


@in_the_soak_alone
@pytest.mark.parametrize(
    ("lost", "where"),
    [
        ("driver_features/*.parquet", "features of seasons side by side, the command"),
        ("causal_network/*.nc", "networks of seasons side by side, the command"),
        ("calibration_posterior/*/*.nc", "archetypes side by side, the command"),
    ],
)
def test_nothing_of_a_killed_run_goes_on_in_other_processes(
    bench: Bench, ledger: Ledger, lost: str, where: str
) -> None:
    """The processes of the pool end with the command."""
    bench.lose(lost)
    before = databases(bench)
    process = bench.start("--update")
    while process.poll() is None and not any(
        kind == "STEP_START" for database in databases(bench) - before for _, kind, _ in events(database)
    ):
        time.sleep(POLL_S)
    own = processes_of(bench)
    assert len(own) > 1
    process.kill()
    process.communicate()
    assert_all_end(bench)
    bench.assert_readable()
    bench.update()
    ledger.enter("SIGKILL", where, 1, "its processes ended with it")


@in_the_soak_alone
def test_an_interrupted_run_ends_with_all_its_processes(bench: Bench, ledger: Ledger) -> None:
    """Only the command receives the signal, as from `kill -INT`, and ends its worker processes."""
    bench.lose("calibration_posterior/*/*.nc")
    before = databases(bench)
    process = bench.start("--update", before=["env", "--default-signal=INT"])
    while process.poll() is None and len(databases(bench) - before) < 2:
        time.sleep(POLL_S)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert "Interrupted; what was finished is kept." in out
    assert "Traceback" not in out
    assert_all_end(bench)
    bench.assert_readable()
    bench.update()
    ledger.enter("SIGINT", "archetypes side by side, the command", 1, "its processes ended with it")


def assert_all_end(bench: Bench) -> None:
    """Give them the second after which Dagster's helpers, that follow a step's output, look for the step."""
    end = time.monotonic() + 20
    while left := processes_of(bench):
        assert time.monotonic() < end, left
        time.sleep(0.2)


def processes_of(bench: Bench) -> list[int]:
    """Return the processes that have the bench's home in their environment."""
    wanted = f"DAGSTER_HOME={bench.home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found
