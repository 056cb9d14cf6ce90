"""Fuzz the targets, guided by the code that inputs reach, and print a table: `make fuzz SECONDS=60`.

Each target runs in a process of its own, with a limit on the time of an input and on memory. An input that
breaks a promise is kept in build/fuzz/<target>/, and the exit code is 1.
"""

import argparse
import os
import re
import subprocess
import sys
import time

from helpers.paths import ROOT

KEPT = ROOT / "build" / "fuzz"
INPUT_S = 120
MEMORY_MB = 4096
LONGEST = 20_000


def fuzz_one(name: str, seconds: int) -> None:
    """Fuzz a target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["calibration_pipeline", "assets"]):
        from fuzz.targets import targets

    target = targets()[name]
    corpus = KEPT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={KEPT / name}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()


def fuzz_all(names: list[str], seconds: int) -> int:
    """Fuzz targets one after the other and print a table of the results."""
    print("| target | inputs | seconds | features reached | peak memory, MB | findings |")
    print("|---|---|---|---|---|---|")
    n_findings = 0
    for name in names:
        folder = KEPT / name
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "fuzz.run", "--one", name, "--seconds", str(seconds)]
            done = subprocess.run(
                command,
                stdout=log,
                stderr=log,
                cwd=ROOT / "tests",
                env={**os.environ, "POLARS_MAX_THREADS": "1"},
                check=False,
                timeout=seconds + 600,
            )
        printed = (folder / "log").read_text(errors="replace")
        numbers = dict(re.findall(r"stat::(\w+):\s+(\d+)", printed))
        reached = re.findall(r"\bft: (\d+)", printed)[-1:] or ["-"]
        found = done.returncode != 0
        n_findings += found
        print(
            f"| {name} | {numbers.get('number_of_executed_units', '-')} | {time.monotonic() - began:.0f} "
            f"| {reached[0]} | {numbers.get('peak_rss_mb', '-')} | {f'see {folder}' if found else 'none'} |",
            flush=True,
        )
    return 1 if n_findings else 0


def main() -> int:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_one(options.one, options.seconds)
        return 0
    from fuzz.targets import targets

    return fuzz_all(options.targets or list(targets()), options.seconds)


if __name__ == "__main__":
    sys.exit(main())
