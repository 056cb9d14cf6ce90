"""Folder of forecasters: names, hubverse models, recognition of forms."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pytest
import xarray as xr
from botocore.exceptions import NoCredentialsError
from upath import UPath

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.folder import (
    SUFFIXES,
    ForecasterFiles,
    Forecasts,
    Form,
    find_forecasters,
    forecaster_version,
    list_forecasters,
    read_forecaster,
    split_models,
)
from calibration_pipeline.forecasters.odds import Margin
from calibration_pipeline.sources.tables.reader import FORMS
from helpers.example_forecasts import (
    NAMES,
    RACES,
    entries,
    event_table,
    finish_matrix,
    finishes,
    in_force,
    position_table,
    results,
    wide_scenarios,
    win_probabilities,
)
from helpers.paths import ROOT

KEYS = ["season", "round", "driver"]


def read(folder: Path | str, name: str | None = None, margin: Margin | None = None) -> Forecasts:
    found = {each.name: each for each in split_models(list_forecasters(folder).forecasters)}
    forecaster = found[name] if name else next(iter(found.values()))
    return read_forecaster(forecaster, in_force(), results(), fold_races=None, seed=7, margin=margin)


def test_files_and_subfolders_are_forecasters(tmp_path: Path) -> None:
    for name in (
        "odds.csv",
        "my sim.parquet",
        "Model.CSV.gz",
        "README.md",
        ".hidden.csv",
        "x.xlsx",
        "net.nc",
    ):
        (tmp_path / name).touch()
    for name in ("2022.csv", "2023.csv", "notes.txt"):
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub" / name).touch()
    (tmp_path / "empty").mkdir()
    listing = list_forecasters(tmp_path)
    names = {each.name: [Path(file).name for file in each.files] for each in listing.forecasters}
    assert names == {
        "Model": ["Model.CSV.gz"],
        "hub": ["2022.csv", "2023.csv"],
        "my sim": ["my sim.parquet"],
        "net": ["net.nc"],
        "odds": ["odds.csv"],
        "x": ["x.xlsx"],
    }
    assert listing.ignored == ["README.md", "empty"]
    assert set(SUFFIXES) - {".nc"} <= set(FORMS)


def test_a_folder_may_be_anywhere(tmp_path: Path) -> None:
    there = UPath("memory://forecasters_test")
    (there / "sub").mkdir(parents=True, exist_ok=True)
    event_table().write_csv(tmp_path / "events.csv")
    xr.Dataset(
        {"finish_position": (("race", "scenario", "driver"), finishes(RACES[0])[None])},
        {"season": ("race", [2022]), "round": ("race", [1]), "driver": list(NAMES)},
    ).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    (there / "events.csv").write_bytes((tmp_path / "events.csv").read_bytes())
    (there / "sub" / "a.nc").write_bytes((tmp_path / "a.nc").read_bytes())
    found = {each.name: each for each in list_forecasters("memory://forecasters_test").forecasters}
    assert sorted(found) == ["events", "sub"]
    forms = {
        name: read_forecaster(each, in_force(), None, fold_races=None, seed=1).form
        for name, each in found.items()
    }
    assert forms == {"events": Form.EVENTS, "sub": Form.SCENARIOS}


@pytest.mark.parametrize(("one", "other"), [("a.csv", "a.parquet"), ("Sim.csv", "sim.nc")])
def test_two_files_of_one_name_are_refused(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / one).touch()
    (tmp_path / other).touch()
    with pytest.raises(ForecasterError, match=f"one file or subfolder; {one} and {other} have one name"):
        list_forecasters(tmp_path)


@pytest.mark.parametrize(
    "name", ["network", "Blend", "Climatology", "driver", "driver_id", "a|b", "a...b", "a\tb", " a"]
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.csv").touch()
    with pytest.raises(ForecasterError, match=r"name of another forecaster|name of a forecaster must have"):
        list_forecasters(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\\b", "..", ".hidden", "a|b", "network"])
def test_models_that_would_be_stored_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    models = pl.col("model_id").replace({"sharp": name})
    hub().with_columns(models).write_parquet(tmp_path / "hub.parquet")
    rule = r"name of another|printable characters, without \|, \.\.\., /, \\ or a dot at its start; got"
    with pytest.raises(ForecasterError, match=rule):
        split_models(list_forecasters(tmp_path).forecasters)
    assert find_forecasters(tmp_path).names == []


def test_the_query_of_an_address_is_no_part_of_a_name(tmp_path: Path) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def send_head(self) -> BytesIO | BinaryIO | None:
            if not self.path.endswith("?token=a/secret"):
                self.send_error(403)
                return None
            return super().send_head()

    event_table().write_csv(tmp_path / "book.csv")
    (tmp_path / "notes.md").touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            forecasts = read(f"{url}/book.csv?token=a/secret", "book")
            other = find_forecasters(f"{url}/notes.md?token=a/secret")
            (book,) = list_forecasters(f"{url}/book.csv?token=a/secret").forecasters
            before = forecaster_version(book)
            os.utime(tmp_path / "book.csv", (0, 0))  # another content of the same size
            assert forecaster_version(book) != before
            with pytest.raises(ForecasterError, match="cannot be listed: 403") as refused:
                list_forecasters(f"{url}/book.csv?token=wrong")
            assert "wrong" not in str(refused.value)
        finally:
            server.shutdown()
            thread.join()
    assert forecasts.form is Form.EVENTS
    assert list(other.refused) == ["notes.md"]


def test_a_folder_without_credentials_is_named(no_credentials: str) -> None:
    with pytest.raises(ForecasterError, match=r"s3://bucket/mine cannot be listed: Unable to locate cred"):
        list_forecasters(f"{no_credentials}/mine")


def test_a_folder_whose_package_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("upath.UPath.is_file", fail)
    with pytest.raises(ForecasterError, match=r"cannot be listed: Install s3fs to access S3\.$"):
        list_forecasters("memory://mine")


def test_a_file_that_a_store_refuses_is_no_forecaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise NoCredentialsError

    event_table().write_csv(tmp_path / "book.csv")
    monkeypatch.setattr("calibration_pipeline.forecasters.folder.forecaster_version", fail)
    found = find_forecasters(tmp_path)
    assert found.refused == {"book": f"{tmp_path / 'book.csv'}: Unable to locate credentials"}


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ForecasterError, match=r"nowhere cannot be listed: No such file or directory"):
        list_forecasters(tmp_path / "nowhere")


def test_listing_imports_no_library_of_tables_or_arrays() -> None:
    program = (
        "import sys, calibration_pipeline.forecasters.folder as folder\n"
        "folder.list_forecasters(sys.argv[1])\n"
        "print(sorted({'polars', 'xarray', 'scipy', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, "."], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_forms_are_recognised(tmp_path: Path) -> None:
    forms = {
        "wide": wide_scenarios(),
        "long": wide_scenarios().unpivot(
            on=list(NAMES), index=["season", "round", "scenario"], variable_name="driver", value_name="finish"
        ),
        "positions": position_table(),
        "matrix": position_table().pivot(
            "position", index=["season", "round", "driver"], values="probability"
        ),
        "events": event_table(),
        "numbered": wide_scenarios().drop("scenario"),
    }
    found = {}
    for name, frame in forms.items():
        frame.write_csv(tmp_path / f"{name}.csv")
        found[name] = read(tmp_path, name).form.value
    assert found == {
        "wide": "scenarios",
        "long": "scenarios",
        "positions": "position probabilities",
        "matrix": "position probabilities",
        "events": "event probabilities",
        "numbered": "scenarios",
    }


def hub_rows(model: str, output_type: str, frame: pl.DataFrame, key: str, value: str) -> pl.DataFrame:
    return frame.select(
        pl.lit(model).alias("model_id"),
        "season",
        "round",
        "driver",
        pl.lit(output_type).alias("output_type"),
        pl.col(key).cast(pl.String).alias("output_type_id"),
        pl.col(value).cast(pl.Float64).alias("value"),
    )


def hub() -> pl.DataFrame:
    long = wide_scenarios().unpivot(
        on=list(NAMES), index=["season", "round", "scenario"], variable_name="driver", value_name="finish"
    )
    cdf = position_table().with_columns(cdf=pl.col("probability").cum_sum().over("round", "driver"))
    events = event_table().unpivot(on=["win", "top5"], index=["season", "round", "driver"], value_name="p")
    return pl.concat(
        [
            hub_rows("sim", "sample", long, "scenario", "finish"),
            hub_rows("sim", "pmf", position_table(), "position", "probability"),
            hub_rows("flat", "cdf", cdf, "position", "cdf"),
            hub_rows("sharp", "pmf", position_table(), "position", "probability"),
            hub_rows("book", "pmf", events, "variable", "p"),
        ]
    )


def test_samples_of_a_hubverse_file_state_the_direction_of_their_scores(tmp_path: Path) -> None:
    long = wide_scenarios().unpivot(
        on=list(NAMES), index=["season", "round", "scenario"], variable_name="driver", value_name="score"
    )
    scores = hub_rows("sim", "sample", long.with_columns(-pl.col("score")), "scenario", "score")
    scores.with_columns(higher_is_better=pl.lit(True)).write_csv(tmp_path / "sim.csv")
    forecasts = read(tmp_path, "sim")
    assert forecasts.notes == ["Of the values in scenarios the higher ones are better: the file states it."]
    np.testing.assert_array_equal(forecasts.dataset["finish_position"].values[1], finishes(RACES[1]))


@pytest.mark.parametrize("name", ["hub.csv", "hub.parquet"])
def test_models_of_a_hubverse_file_are_forecasters(tmp_path: Path, name: str) -> None:
    if name.endswith(".csv"):
        hub().write_csv(tmp_path / name)
    else:
        hub().write_parquet(tmp_path / name)
    listed = list_forecasters(tmp_path).forecasters
    assert [each.name for each in listed] == ["hub"]
    assert [each.name for each in split_models(listed)] == ["book", "flat", "sharp", "sim"]
    sim = read(tmp_path, "sim").values
    assert isinstance(sim, xr.Dataset)
    np.testing.assert_array_equal(sim["finish_position"].values[1], finishes(RACES[1]))
    for model in ("flat", "sharp"):
        positions = read(tmp_path, model).values
        assert isinstance(positions, xr.Dataset)
        np.testing.assert_allclose(positions["probability"].values[2], finish_matrix(RACES[2]), atol=1e-9)
    events = read(tmp_path, "book").values
    assert isinstance(events, pl.DataFrame)
    wins = events.filter(race_id=207201, market="win")["probability"]
    np.testing.assert_allclose(wins, win_probabilities(RACES[0]), rtol=1e-9)
    with pytest.raises(ForecasterError, match="holds the forecasts of 4 models: book, flat, sharp, sim"):
        read_forecaster(listed[0], in_force(), None, fold_races=None, seed=1)


def test_columns_beside_those_of_a_hubverse_file_are_not_read(tmp_path: Path) -> None:
    """They may have the names that a plain form has."""
    for folder in ("bare", "more"):
        (tmp_path / folder).mkdir()
    hub().write_csv(tmp_path / "bare" / "hub.csv")
    others = {name: pl.lit("mine") for name in ("market", "Position", "probability", "scenario", "note")}
    hub().with_columns(**others).write_csv(tmp_path / "more" / "hub.csv")
    for model in ("sim", "flat", "sharp", "book"):
        bare, more = (read(tmp_path / folder, model) for folder in ("bare", "more"))
        assert bare.form is more.form
        if isinstance(bare.values, pl.DataFrame):
            assert bare.frame.equals(more.frame)
        else:
            xr.testing.assert_identical(bare.dataset, more.dataset)


def test_a_hubverse_file_of_one_model_has_the_name_of_its_file(tmp_path: Path) -> None:
    hub().filter(model_id="flat").write_csv(tmp_path / "mine.csv")
    hub().filter(model_id="flat").drop("model_id").write_csv(tmp_path / "other.csv")
    assert read(tmp_path, "mine").form is Form.POSITIONS
    assert read(tmp_path, "other").form is Form.POSITIONS


def test_a_model_with_the_name_of_a_forecaster_is_refused(tmp_path: Path) -> None:
    hub().write_csv(tmp_path / "hub.csv")
    event_table().write_csv(tmp_path / "Book.csv")
    with pytest.raises(ForecasterError, match=r"must not have one name: 'book' is in .*Book.csv"):
        split_models(list_forecasters(tmp_path).forecasters)


def test_forecasters_are_found_by_form_and_other_files_are_named(tmp_path: Path) -> None:
    hub().write_csv(tmp_path / "hub.csv")
    event_table().write_csv(tmp_path / "sharp_book.csv")
    wide_scenarios().write_csv(tmp_path / "wide.csv")
    event_table().write_csv(tmp_path / "Sim.csv")
    (tmp_path / "arrays.nc").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / "broken.parquet").write_text("no Parquet")
    pl.DataFrame({"season": [2022], "round": [1], "driver": ["Ann"]}).write_csv(tmp_path / "bare.csv")
    found = find_forecasters(tmp_path)
    assert {form: sorted(names) for form, names in found.by_form.items()} == {
        Form.SCENARIOS: ["arrays", "wide"],
        Form.POSITIONS: ["flat", "sharp"],
        Form.EVENTS: ["Sim", "book", "sharp_book"],
    }
    reasons = {
        "README.md": "no file of it ends in .nc",
        "bare": "bare.csv is no form of forecast",
        "broken": "broken.parquet",
        "hub": "another forecaster has the name 'sim'",
    }
    assert found.refused.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in found.refused[name]
    assert not any(find_forecasters(None).by_form.values())


def test_a_file_that_is_written_again_is_recognised_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    event_table().write_csv(path)
    assert list(find_forecasters(tmp_path).by_form[Form.EVENTS]) == ["mine"]
    wide_scenarios().write_csv(path)
    assert list(find_forecasters(tmp_path).by_form[Form.SCENARIOS]) == ["mine"]


def test_a_link_to_a_file_that_is_gone_is_no_forecaster(tmp_path: Path) -> None:
    event_table().write_csv(tmp_path / "book.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    found = find_forecasters(tmp_path)
    assert found.names == ["book"]
    assert re.fullmatch(r".*gone\.csv: No such file or directory", found.refused["gone"])


def test_a_changed_file_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    wide_scenarios().write_csv(path)
    (forecaster,) = list_forecasters(tmp_path).forecasters
    before = forecaster_version(forecaster)
    assert forecaster_version(forecaster) == before
    path.write_text(path.read_text() + "\n")
    assert forecaster_version(forecaster) != before


def test_quantiles_are_refused(tmp_path: Path) -> None:
    hub().with_columns(output_type=pl.lit("quantile"), model_id=pl.lit("a")).write_csv(tmp_path / "hub.csv")
    with pytest.raises(ForecasterError, match="output_type must be sample, pmf, cdf; got quantile"):
        read(tmp_path)


def test_files_of_a_subfolder_are_joined(tmp_path: Path) -> None:
    (tmp_path / "sim").mkdir()
    wide_scenarios((202201,)).write_csv(tmp_path / "sim" / "1.csv")
    wide_scenarios((202202,), 100).write_parquet(tmp_path / "sim" / "2.parquet")
    xr.Dataset(
        {"finish_position": (("race", "scenario", "driver"), finishes(RACES[2])[None])},
        {"season": ("race", [2022]), "round": ("race", [3]), "name": ("driver", list(NAMES))},
    ).to_netcdf(tmp_path / "sim" / "3.nc", engine="h5netcdf")
    values = read(tmp_path).values
    assert isinstance(values, xr.Dataset)
    assert values["n_scenarios"].values.tolist() == [150, 100, 150]
    wide_scenarios((202201,)).write_csv(tmp_path / "sim" / "again.csv")
    with pytest.raises(ForecasterError, match=r"2022 race 1 \(kansas\) is in another file as well"):
        read(tmp_path)
    (tmp_path / "sim" / "again.csv").unlink()
    event_table().write_csv(tmp_path / "sim" / "odds.csv")
    with pytest.raises(ForecasterError, match="one form; they hold event probabilities and scenarios"):
        read(tmp_path)


def test_a_file_without_a_usable_race_is_refused(tmp_path: Path) -> None:
    event_table().filter(pl.col("driver") != "Kyle Busch").write_csv(tmp_path / "short.csv")
    with pytest.raises(
        ForecasterError,
        match=r"no race of it can be used: 2022 race 1 \(kansas\): the forecast must have",
    ):
        read(tmp_path)
    event_table().select("season", "round", "driver", speed="win").write_csv(tmp_path / "short.csv")
    with pytest.raises(ForecasterError, match="is no form of forecast: beside driver it must have"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "xlsx"])
@pytest.mark.parametrize(
    "content", [b"", b"season;round\n", b"\x00\x01\x02" * 100, b"\xff\xfe", b"PAR1" + b"\x07" * 99 + b"PAR1"]
)
def test_a_file_without_a_table_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    with pytest.raises(ForecasterError):
        read(tmp_path)


def test_the_margin_method_is_passed_on(tmp_path: Path) -> None:
    odds = pl.Series([repr(p**-0.9) for p in event_table()["win"]])
    event_table().select("season", "round", "driver", win_odds=odds).write_csv(tmp_path / "book.csv")
    forecast = read(tmp_path, margin=Margin.POWER)
    assert isinstance(forecast.values, pl.DataFrame)
    wins = forecast.values.filter(race_id=207201)["probability"]
    np.testing.assert_allclose(wins, win_probabilities(RACES[0]), rtol=1e-8)
    assert forecast.overrounds["source"].unique().to_list() == ["decimal odds"]


def test_files_are_named_without_credentials() -> None:
    forecaster = ForecasterFiles("a", ("memory://user:secret@bucket/a.csv",))
    with pytest.raises(ValueError, match=r"memory://bucket/a\.csv does not exist") as caught:
        read_forecaster(forecaster, in_force(), None, fold_races=None, seed=1)
    assert "secret" not in str(caught.value)


LARGE = """
import re, sys
from pathlib import Path
import polars as pl
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, read_forecaster
races = RacesInForce(pl.read_parquet(sys.argv[1]))
read_forecaster(ForecasterFiles("large", (sys.argv[2],)), races, None, fold_races=None, seed=1)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.soak
@pytest.mark.parametrize(("form", "most_mb"), [("wide", 1_600), ("long", 1_100)])
def test_100_mb_of_csv_take_little_memory(tmp_path: Path, form: str, most_mb: int) -> None:
    """Measured for the whole process: 1,144 MB for 32 million numbers, 711 MB for 3.6 million rows."""
    races = tuple((2020 + k // 36) * 100 + k % 36 + 1 for k in range(72))
    entries(races).write_parquet(tmp_path / "entries.parquet")
    wide = wide_scenarios(races, 38_000 if form == "wide" else 4_200)
    index = [*KEYS[:2], "scenario"]
    frame = wide if form == "wide" else wide.unpivot(on=list(NAMES), index=index, variable_name="driver")
    frame.write_csv(tmp_path / "large.csv")
    assert (tmp_path / "large.csv").stat().st_size > 95e6
    files = [str(tmp_path / "entries.parquet"), str(tmp_path / "large.csv")]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *files], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(done.stdout) < most_mb, done.stdout
