"""Programs that JAX compiles, or loads from its cache: their names, in this process or of a whole run.

`python -m helpers.programs ARGUMENTS` runs the command line and prints the names as its last line, in JSON.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compiled_programs() -> Iterator[list[str]]:
    """Collect the names of the functions that JAX compiles meanwhile; `jit(f)` is that of f."""
    import jax.monitoring  # late: JAX reads the environment when it is imported

    names: list[str] = []

    def note(event: str, _duration_s: float, **details: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(details["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


if __name__ == "__main__":
    from assets.cli import main
    from assets.jax_environment import prepare_jax

    prepare_jax()
    with compiled_programs() as compiled:
        code = main(sys.argv[1:])
    sys.stdout.write(json.dumps(compiled))
    sys.exit(code)
