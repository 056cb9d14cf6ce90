"""A user's event and position probabilities as targets: bytes, changed cells, other types, and prices."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import polars as pl

from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import ForecasterFiles, read_forecaster, split_models
from calibration_pipeline.forecasters.odds import (
    Margin,
    Notation,
    implied_probability,
    recognise_notation,
    remove_margin,
)
from fuzz.choices import Choices, columns_of
from fuzz.ensembles import ENTRIES

RACES = RacesInForce(ENTRIES)
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-probabilities-"))
EVENTS = """season,round,driver,win,top3
2021,1,A,0.6,1
2021,1,B,0.3,1
2021,1,Ç,0.1,1
2021,2,A,0,1
2021,2,B,0.5,1
2021,2,Ç,0.5,1
"""
ODDS = """\ufeffSeason;Round;Driver;Win odds
2021;1;A;1,55
2021;1;B;3,2
2021;1;Ç;8
2021;2;A;3
2021;2;B;2,8
2021;2;Ç;2,75
"""
POSITIONS = """season,round,driver,position,probability
2021,1,A,1,0.7
2021,1,A,rest,0.3
2021,1,B,1,0.2
2021,1,B,2,0.6
2021,1,B,3,0.2
2021,1,Ç,3,1
"""
MATRIX = """race_id,car,p1,p2,rest
207101,5,0.6,0.3,0.1
207101,99,0.3,0.4,0.3
207101,47,0.1,0.3,0.6
"""
HUBVERSE = """model_id,season,round,driver,output_type,output_type_id,value
a,2021,1,A,pmf,1,0.5
a,2021,1,B,pmf,1,0.3
a,2021,1,Ç,pmf,1,0.2
b,2021,1,A,cdf,2,0.5
b,2021,1,B,cdf,2,0.9
b,2021,1,Ç,cdf,2,0.6
c,2021,1,A,pmf,win,0.5
c,2021,1,B,pmf,win,0.3
c,2021,1,Ç,pmf,win,0.2
"""
TABLES = (EVENTS, ODDS, POSITIONS, MATRIX, HUBVERSE)
CSV = [text.encode() for text in TABLES]
PRICES = [b"+150\n-400\nEVEN", b"2.5\n101\n1,5", b"5/2\nevs\n1-3", "−110\n+220".encode()]


def read_all(path: Path) -> None:
    """Read each forecaster of a file as the pipeline does."""
    with contextlib.suppress(ValueError):
        for forecaster in split_models([ForecasterFiles(path.name, (str(path),))]):
            with contextlib.suppress(ValueError):
                read_forecaster(forecaster, RACES, None, fold_races=None, seed=1)


def read_bytes(data: bytes, suffix: str) -> None:
    """Read bytes as a file."""
    path = FOLDER / f"{os.getpid()}{suffix}"
    path.write_bytes(data)
    read_all(path)


def probabilities_csv(data: bytes) -> None:
    """Bytes as a table of probabilities or odds."""
    read_bytes(data, ".csv")


def probabilities_cells(data: bytes) -> None:
    """Valid tables with changed cells, rows and headers."""
    choices = Choices(data)
    text = choices.pick(TABLES)
    mark = ";" if ";" in text else ","
    rows = choices.changed([line.split(mark) for line in text.splitlines()], most=6)
    lines = [mark.join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
    probabilities_csv("\n".join(lines).encode(errors="surrogatepass"))


def probabilities_columns(data: bytes) -> None:
    """Valid tables whose columns hold other types and values, in Parquet."""
    choices = Choices(data)
    frame = pl.read_csv(choices.pick((EVENTS, POSITIONS, MATRIX, HUBVERSE)).encode())
    buffer = io.BytesIO()
    try:
        columns_of(choices, frame).write_parquet(buffer)
    except (pl.exceptions.PolarsError, UnicodeError):
        return
    read_bytes(buffer.getvalue(), ".parquet")


def prices(data: bytes) -> None:
    """Lines as prices of a market: implied probabilities lie between 0 and 1, and the fair ones sum to 1."""
    texts = data.decode(errors="surrogateescape").splitlines()
    with contextlib.suppress(ValueError):
        recognise_notation(texts)
    for notation in Notation:
        implied = []
        for text in texts:
            with contextlib.suppress(ValueError):
                implied.append(implied_probability(text, notation))
        if not all(0 <= value <= 1 for value in implied):
            raise AssertionError(f"{texts} in {notation} notation are {implied}")
        for method in Margin:
            with contextlib.suppress(ValueError):
                fair = remove_margin(implied, 1, method)
                if abs(fair.sum() - 1) > 1e-6 or not ((fair >= 0) & (fair <= 1)).all():
                    raise AssertionError(f"{texts} in {notation} notation without margin are {fair}")
