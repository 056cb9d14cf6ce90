"""Disks that are full or cannot be written, spoilt files, clocks that jump, and two runs at once."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from calibration_pipeline.schemas.contracts import place
from faults.bench import ALL, ARCHETYPE, TO_FEATURES, TO_NETWORK, Bench, ended, in_the_soak_alone
from faults.ledger import Ledger
from helpers.stored import content, empty, flip, truncate

SEED = 20261127
MIB = 2**20
LOST = ("lap_telemetry/2025.parquet", "driver_features/2025.parquet", "causal_network/2025.nc")
"""Files that most tests delete before an update: tables and, in the soak, a NetCDF file."""


def narrowed(bench: Bench) -> list[str]:
    """Return the options of a run that materializes the files in `LOST` and selects few other assets."""
    return ["--select", TO_NETWORK if bench.select == ALL else TO_FEATURES]


@contextmanager
def own_disk(folder: Path, size: int) -> Iterator[None]:
    """Put a folder's content on a small disk in memory that is mounted in its place."""
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607
        folder.rmdir()
        aside.rename(folder)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)  # noqa: S607


def fill(folder: Path, left: int) -> Path:
    """Fill a disk but for so many bytes; return the file that does."""
    filler = folder / ".filler"
    free = os.statvfs(folder)
    with filler.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - left)))
    return filler


@pytest.mark.soak
def test_a_full_disk_is_named_and_nothing_is_half_written(
    bench: Bench, undisturbed: Bench, ledger: Ledger
) -> None:
    """Full to the last byte; in the soak also with room for some of the files."""
    for left in (0, 20_000, 200_000) if bench.select == ALL else (0,):
        with own_disk(bench.folder / "store", 48 * MIB):
            bench.lose(*LOST)
            filler = fill(bench.folder / "store", left)
            done = bench.run("--update", *narrowed(bench))
            bench.assert_readable()
            filler.unlink()
            assert done.code == 1, done.out
            assert "No space left on device (free some space there and try again)" in done.out
            assert str(bench.store) in done.out.partition("No space left on device")[2]
            bench.update(*narrowed(bench))
            bench.assert_mended(undisturbed)
        ledger.enter("full disk", "store", 1, "ended in a line that names it")


@in_the_soak_alone
@pytest.mark.parametrize("left", [0, 100_000])
def test_a_full_disk_of_dagsters_records_is_named(
    bench: Bench, undisturbed: Bench, ledger: Ledger, left: int
) -> None:
    with own_disk(bench.home, 96 * MIB):
        bench.lose(*LOST)
        filler = fill(bench.home, left)
        done = bench.run("--update", *narrowed(bench))
        bench.assert_readable()
        filler.unlink()
        assert done.code in (1, 2), done.out
        refused = f"Dagster's records in {bench.home} cannot be kept"
        assert refused in done.out or "No space left on device" in done.out
        bench.update(*narrowed(bench))
        bench.assert_mended(undisturbed)
    ledger.enter("full disk", "Dagster's records", 1, "ended in a line that names it")


@in_the_soak_alone
@pytest.mark.parametrize("where", ["store", "home"])
def test_a_disk_that_cannot_be_written_is_named(
    bench: Bench, undisturbed: Bench, ledger: Ledger, where: str
) -> None:
    with own_disk(bench.folder / where, 96 * MIB):
        bench.lose(*LOST)
        before = content(bench.store)
        remount(bench.folder / where, "ro")
        done = bench.run("--update", *narrowed(bench))
        remount(bench.folder / where, "rw")
        assert done.code in (1, 2), done.out
        assert "Read-only file system" in done.out or "readonly database" in done.out
        assert content(bench.store) == before
        bench.update(*narrowed(bench))
        bench.assert_mended(undisturbed)
    ledger.enter(
        "read-only disk", {"home": "Dagster's records"}.get(where, where), 1, "ended in a line that names it"
    )


SPOILS: tuple[Callable[[bytes], bytes], ...] = (truncate, flip, empty)


@pytest.mark.soak
def test_spoilt_files_are_named_and_materialized_again(
    bench: Bench, undisturbed: Bench, ledger: Ledger
) -> None:
    """One file of each asset, truncated, emptied or with bytes flipped."""
    draw = random.Random(SEED)  # noqa: S311
    stored = [*content(bench.store), *(path.name for path in bench.store.glob("*.duckdb"))]
    spoilt: dict[str, str] = {}
    for path in sorted(stored):
        asset, *parts = Path(path).with_suffix("").parts
        partition = "|".join(parts)
        if partition in ("", "2025", "network", f"{ARCHETYPE}|network"):
            spoilt[path] = place(asset, partition or None)
    spoils = [SPOILS[n % len(SPOILS)] for n in range(len(spoilt))]
    draw.shuffle(spoils)
    for path, spoil in zip(spoilt, spoils, strict=True):
        file = bench.store / path
        file.write_bytes(spoil(file.read_bytes()))
    out = bench.update().out
    for where in spoilt.values():
        assert f"– {where} " in out, f"{where} is not named in {out}"
    bench.assert_mended(undisturbed)
    for spoil in SPOILS:
        ledger.enter(
            f"spoilt file: {spoil.__name__}", "store", spoils.count(spoil), "named and materialized again"
        )


@in_the_soak_alone
def test_a_spoilt_document_of_a_feed_is_named_and_costs_its_race_alone(
    bench: Bench, undisturbed: Bench, ledger: Ledger, tmp_path: Path
) -> None:
    feed = tmp_path / "feed"
    shutil.copytree(undisturbed.feed, feed)
    broken = bench.copied(tmp_path / "broken", CALIBRATION_FEED_URL=str(feed))
    first, second, *_ = sorted((feed / "2025" / "1").iterdir())
    documents = [
        (feed / "2025" / "race_list_basic.json", "", "ended in a line that names it"),
        (first / "weekend-feed.json", "race_results", "named it and left out the race"),
        (second / "lap-times.json", "lap_telemetry", "named it and left out the race's laps"),
    ]
    tables = [broken.store / name / "2025.parquet" for name in ("race_results", "lap_telemetry")]
    for spoil, (document, lost, did) in zip(SPOILS, documents, strict=True):
        assert broken.run("--select", "race_results,lap_telemetry").code == 0
        before = {path.parent.name: pl.read_parquet(path) for path in tables}
        stored = content(broken.store)
        whole = document.read_bytes()
        document.write_bytes(spoil(whole))
        done = broken.run("--select", "race_results,lap_telemetry")
        document.write_bytes(whole)
        assert done.code == (0 if lost else 1), done.out
        assert document.name in done.out
        changed = {path for path, version in content(broken.store).items() if stored[path] != version}
        own = {f"{name}/2025.parquet" for name in ("race_results", "lap_telemetry", "quarantine")}
        assert changed <= (own if lost else set())
        race = pl.col("race_id") == int(document.parent.name) if lost else pl.lit(False)
        after = {path.parent.name: pl.read_parquet(path) for path in tables}
        for name, rows in before.items():
            assert after[name].remove(race).equals(rows.remove(race)), (document, name)
        assert after["race_results"].filter(race).is_empty() == (lost != "lap_telemetry")
        assert after["lap_telemetry"].filter(race).is_empty()
        ledger.enter(f"spoilt file: {spoil.__name__}", f"feed (`{document.name}`)", 1, did)
    assert broken.run("--select", "race_results,lap_telemetry").code == 0
    broken.update()  # the report is of another feed
    broken.assert_mended(undisturbed)


@pytest.mark.soak
def test_two_runs_at_once_both_end_and_agree(bench: Bench, undisturbed: Bench, ledger: Ledger) -> None:
    """The same partitions at the same time."""
    bench.lose(*LOST)
    first, second = [bench.start("--update", *narrowed(bench)) for _ in range(2)]
    for done in (ended(first), ended(second)):
        assert done.code == 0, done.out
    bench.assert_mended(undisturbed)
    ledger.enter("two runs at once", "the same partitions", 1, "both ended well")


@in_the_soak_alone
def test_two_first_runs_at_once_both_end_and_agree(bench: Bench, undisturbed: Bench, ledger: Ledger) -> None:
    shutil.rmtree(bench.home)
    bench.lose("lap_*/*", "driver_features/*", "race_results/*", "track_constraints.*")
    first, second = [bench.start("--update", "--select", TO_FEATURES) for _ in range(2)]
    for done in (ended(first), ended(second)):
        assert done.code == 0, done.out
    bench.assert_mended(undisturbed)
    ledger.enter("two runs at once", "the first ever, on an empty `DAGSTER_HOME`", 1, "both ended well")


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that, preloaded, sets a process's wall clock off; faketime breaks Python's sleep."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed: apt-get install gcc")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


@in_the_soak_alone
def test_a_clock_that_jumps_between_runs_makes_nothing_stale(
    bench: Bench, undisturbed: Bench, ledger: Ledger, clock: Path, tmp_path: Path
) -> None:
    """Staleness depends on the order of the records and on content, never on the clock."""
    offset = tmp_path / "offset"
    for days in (500, -200):
        offset.write_text(str(days * 86_400))
        bench.lose(*LOST)
        bench.update(*narrowed(bench), before=off(clock, offset))
        bench.assert_mended(undisturbed)
        ledger.enter(
            "clock", f"{'on' if days > 0 else 'back'} by {abs(days)} days, for a run", 1, "ended well"
        )


@in_the_soak_alone
def test_a_clock_that_jumps_during_a_run_changes_nothing(
    bench: Bench, undisturbed: Bench, ledger: Ledger, clock: Path, tmp_path: Path
) -> None:
    """Every second a day on, or two days back."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    bench.lose(*LOST)
    process = bench.start("--update", *narrowed(bench), before=off(clock, offset))
    jumps = 0
    while process.poll() is None:
        time.sleep(1)
        jumps += 1
        offset.write_text("86400" if jumps % 2 else "-86400")
    done = ended(process)
    assert done.code == 0, done.out
    bench.assert_mended(undisturbed)
    ledger.enter("clock", "on and back by days, during a run", jumps, "ended well")


def off(clock: Path, offset: Path) -> list[str]:
    """Return a prefix for a command that shifts its clock by the number of seconds in a file."""
    return ["env", f"LD_PRELOAD={clock}", f"CLOCK_OFFSET_FILE={offset}"]
