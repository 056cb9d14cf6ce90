"""Hold the pinned packages against the database of known vulnerabilities, where it can be reached.

Exit code 0: none is known, or the database cannot be asked, which is said in one line. 1: some are known.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"
AUDIT = "pip-audit@2.10.1"
LIMIT_S = 300


def main() -> int:
    """Audit the lock."""
    uv = Path(sys.executable).with_name("uv")
    command = [
        str(uv),
        "tool",
        "run",
        "--quiet",
        AUDIT,
        "--requirement",
        str(LOCK),
        "--disable-pip",
        "--no-deps",
    ]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)  # noqa: S603
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"skipped: the database of vulnerabilities did not answer within {LIMIT_S} s")  # noqa: T201
        return 0
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:200]
        print(f"skipped: the database of vulnerabilities cannot be asked: {reason}")  # noqa: T201
        return 0
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        print(f"skipped: the database of vulnerabilities knows none of {len(packages)} packages here")  # noqa: T201
        return 0
    found = [(package, advisory) for package in audited for advisory in package["vulns"]]
    for package, advisory in found:
        fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {advisory['id']}, mended in {fixed}")  # noqa: T201
    print(f"{len(audited)} of {len(packages)} packages audited, {len(found)} vulnerabilities known")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
