"""The Dagster instance: its home folder, with our defaults, inside the project folder."""

import os
import shutil
from pathlib import Path

from assets.settings import project_folder

DEFAULT_CONFIG = Path(__file__).with_name("dagster.yaml")


def prepare_home() -> Path:
    """Return DAGSTER_HOME, made and configured where it is not yet, and set in the environment."""
    home = Path(os.environ.get("DAGSTER_HOME") or project_folder() / ".dagster_home").expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        shutil.copyfile(DEFAULT_CONFIG, config)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
