"""What a process sets up before it computes: what JAX compiles is kept for the next one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import jax
from assets.process import prepare_process

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
prepare_process()
prepare_process()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
assert jax.jit(lambda x: x + 1)(1) == 2
print(jax.local_device_count(), len(hits), jax.config.jax_compilation_cache_dir)
"""


def told(home: Path, **variables: str) -> list[str]:
    """Run the program in a new process and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**kept, "DAGSTER_HOME": str(home), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_one_process_compiles_the_next_one_loads(tmp_path: Path) -> None:
    first, second = told(tmp_path), told(tmp_path)
    assert first[:2] == ["4", "0"]
    assert second[0] == "4"
    assert int(second[1]) > 0
    assert second[2] == first[2]
    assert Path(first[2]).parent == tmp_path / "compiled"


def test_what_a_killed_process_left_empty_is_made_again(tmp_path: Path) -> None:
    folder = Path(told(tmp_path)[2])
    entries = sorted(folder.iterdir())
    for entry in entries:
        entry.write_bytes(b"")
    assert told(tmp_path)[1] == "0"
    assert sorted(folder.iterdir()) == entries
    assert all(entry.stat().st_size for entry in entries)


def test_another_folder_of_the_user_s_is_used(tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    assert told(tmp_path, JAX_COMPILATION_CACHE_DIR=own)[2] == own
    assert not (tmp_path / "compiled").exists()
