"""A feed, a store and an instance in a folder, the command line over them, and what holds after a fault."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.definitions import build_defs
from assets.orchestration.staleness import Lineage
from assets.runner.selection import select_assets
from assets.settings import Settings
from calibration_pipeline.io.stored_files import content_version
from calibration_pipeline.io.stored_values import files_of, read_value
from calibration_pipeline.schemas.contracts import place
from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints
from helpers.feed_layout import write_entries, write_feed
from helpers.paths import ROOT
from helpers.stored import assert_same_values, views

SEASONS = (2024, 2025)
N_RACES = 2
ARCHETYPE = "road_course"
LONGEST_S = 900.0
ALL = ""
TO_FEATURES = "+driver_features"
TO_NETWORK = "+causal_network"
SAMPLE = pytest.param(TO_FEATURES, id="sample", marks=pytest.mark.slow)
SOAK = pytest.param(ALL, id="soak", marks=pytest.mark.soak)
in_the_soak_alone = pytest.mark.parametrize("undisturbed", [SOAK], indirect=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str


@dataclass(frozen=True)
class Bench:
    """All that a run uses, below one folder.

    Attributes
    ----------
    folder : Path
    select : str
        Assets that are materialized here; all where it is empty.
    env : mapping
        Replaces variables of the environment.
    seen : dict
        Time and size of files that were found whole: they are not read again until they change.
    """

    folder: Path
    select: str = ALL
    env: Mapping[str, str] = field(default_factory=dict)
    seen: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def feed(self) -> Path:
        return self.folder / "feed"

    @property
    def store(self) -> Path:
        return self.folder / "store" / "nascar_feed" / "cup"

    @cached_property
    def environment(self) -> dict[str, str]:
        """Environment of a process. JAX's compilation cache is kept, so that a run takes seconds."""
        return {
            "CALIBRATION_SOURCE": "nascar_feed",
            "CALIBRATION_FEED_URL": str(self.feed),
            "CALIBRATION_SEASONS": ",".join(map(str, SEASONS)),
            "CALIBRATION_SCENARIOS": "100",
            "CALIBRATION_STORE": str(self.folder / "store"),
            "DAGSTER_HOME": str(self.home),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }

    def start(self, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start `run`, after the words of another command where there are any."""
        selected = ["--select", self.select] if self.select and "--select" not in options else []
        return subprocess.Popen(
            [*before, sys.executable, "-u", "-m", "assets.cli", "run", *selected, *options],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str, before: Sequence[str] = ()) -> Ended:
        """Run to the end. It may fail, but in a line and not in a traceback."""
        return ended(self.start(*options, before=before))

    def update(self, *options: str, before: Sequence[str] = ()) -> Ended:
        """Run `--update`, which must succeed."""
        done = self.run("--update", *options, before=before)
        assert done.code == 0, done.out
        return done

    def copied(self, folder: Path, **env: str) -> "Bench":
        """Return a bench in another folder beside this one, with a copy of it all but the feed."""
        for name in ("store", "home"):
            shutil.copytree(self.folder / name, folder / name, symlinks=True)
        compiled, feed = (
            self.environment["JAX_COMPILATION_CACHE_DIR"],
            self.environment["CALIBRATION_FEED_URL"],
        )
        kept = {"JAX_COMPILATION_CACHE_DIR": compiled, "CALIBRATION_FEED_URL": feed}
        seen = {folder / path.relative_to(self.folder): stamp for path, stamp in self.seen.items()}
        return replace(self, folder=folder, env={**kept, **self.env, **env}, seen=seen)

    def lose(self, *names: str) -> None:
        """Delete files of the store; a name may be a pattern."""
        for name in names:
            for path in self.store.glob(name):
                path.unlink()

    @cached_property
    def settings(self) -> Settings:
        given = {
            name.removeprefix("CALIBRATION_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("CALIBRATION_") and "POSTGRES" not in name
        }
        return Settings(**given)

    @cached_property
    def defs(self) -> dg.Definitions:
        return build_defs(self.settings)

    def assert_readable(self) -> None:
        """Every file is an asset's, and fulfils its contract; files that killed writers left do not count."""
        with dg.DagsterInstance.ephemeral() as instance:  # the one in `home` may have no room
            lineage = Lineage(self.defs.resolve_asset_graph(), self.settings, instance)
            for path in sorted(self.store.rglob("*")):
                if path.is_dir() or (path.name.startswith(".") and path.suffix == ".tmp"):
                    continue
                stamp = (path.stat().st_mtime_ns, path.stat().st_size)
                if self.seen.get(path) == stamp:
                    continue
                asset, *parts = path.relative_to(self.store).with_suffix("").parts
                partition = "|".join(parts) or None
                stored = lineage.path(asset, partition)
                if path.suffix != ".md":
                    assert str(stored) == str(path), f"{path} is no asset's file"
                    read_value(stored, asset, partition)
                if path.suffix == ".duckdb":
                    assert views(path)
                self.seen[path] = stamp

    def unlike_records(self) -> set[str]:
        """Return the stored partitions whose content is not the one that was last recorded."""
        found = set()
        with self._lineage() as lineage:
            for asset, partition in self._partitions(lineage):
                record, path = lineage.record(asset, partition), lineage.path(asset, partition)
                if record and path.exists():
                    files = files_of(path, asset)
                    stored = content_version(b"".join(file.read_bytes() for file in files))
                    if record.data_version != stored:
                        found.add(place(asset, partition))
        return found

    def assert_fresh(self) -> None:
        """No partition is missing, damaged or stale."""
        with self._lineage() as lineage:
            reasons = {lineage.stale_reason(*partition) for partition in self._partitions(lineage)}
        assert reasons == {None}

    def assert_mended(self, undisturbed: "Bench") -> None:
        """All is readable, fresh, and equal to an undisturbed run's."""
        self.assert_readable()
        assert self.unlike_records() == set()
        self.assert_fresh()
        if self.settings.feed_url.startswith("http://"):
            for page in undisturbed.store.glob("calibration_report.*"):  # it names the feed's address
                shutil.copy(page, self.store)
        assert_same_values(self.settings.store_path, undisturbed.store)

    def _partitions(self, lineage: Lineage) -> Iterator[tuple[str, str | None]]:
        """Yield the partitions of all selected assets."""
        for asset in select_assets(self.defs, self.select):
            for partition in lineage.partitions(asset):
                yield asset, partition

    @contextmanager
    def _lineage(self) -> Iterator[Lineage]:
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield Lineage(self.defs.resolve_asset_graph(), self.settings, instance)


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command and return how it ended; a failure must end in lines and not in a traceback."""
    try:
        out, _ = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    assert "Traceback" not in out, out
    assert process.returncode in (0, 1, 2), (process.returncode, out)
    return Ended(process.returncode, out)


def write_races(folder: Path) -> None:
    """Write a feed: two simulated seasons, first races of each archetype, and the next race's entries."""
    source = SimulatedSource(SEASONS, compile_constraints(), seed=42)
    seasons = {}
    for season in SEASONS:
        data = source.load_season(season)
        races = data.race_results.unique("race_id", maintain_order=True)
        first = races.filter(pl.int_range(pl.len()).over("archetype") < N_RACES)["race_id"].implode()
        results = data.race_results.filter(pl.col("race_id").is_in(first))
        seasons[season] = SeasonData(results, data.lap_telemetry.filter(pl.col("race_id").is_in(first)))
    write_feed(folder, seasons)
    write_entries(folder, source.next_race(SEASONS[-1]).entries)


def feed_cache(address: str) -> Path:
    """Return the folder that keeps copies of a feed's documents."""
    return ROOT / "data" / "feed_cache" / hashlib.sha256(address.encode()).hexdigest()[:16]
