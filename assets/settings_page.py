"""The page of settings in the documentation, made from the typed object: python -m assets.settings_page."""

from .settings import ENV_PREFIX, Settings, project_folder

PAGE = "docs/settings.md"
HEAD = """\
# Settings

<!-- Made by `python -m assets.settings_page`; a test holds it against the code. -->

Every setting can be given as an option of a command (`--seasons 2020-2023`), in the environment
(`CALIBRATION_SEASONS=2020-2023`) or in a file `.env` in the project's folder; the first of these that names
it wins. `calibration-pipeline settings` shows what is in force and where it came from. The UI, its daemon
and `dg` read the environment and `.env`. A value that is not allowed is refused, with its name and origin.

| option | environment | default | what it is |
|---|---|---|---|
"""
TAIL = """
`DAGSTER_HOME` is where Dagster keeps its own records: `.dagster_home/` in the project's folder by default.
What JAX has compiled is kept there too, in `compiled/`; `JAX_COMPILATION_CACHE_DIR` names another folder.
"""


def settings_page() -> str:
    """Return the page, as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        about = (field.description or "").replace("|", "\\|")
        option = name.replace("_", "-")
        rows.append(f"| `--{option}` | `{ENV_PREFIX}{name.upper()}` | {default} | {about} |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    (project_folder() / PAGE).write_text(settings_page(), encoding="utf-8")
