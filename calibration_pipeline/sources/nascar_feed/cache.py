"""Copies of documents from the web, each with its hash and what it takes to ask whether it has changed."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from calibration_pipeline.io.files import write_atomically

logger = logging.getLogger(__name__)

LONGEST_VALIDATOR = 500


class _Label(BaseModel):
    """What lies beside a copy."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: str
    final: bool
    validators: dict[str, str]


@dataclass(frozen=True)
class KeptDocument:
    """A copy of a document.

    Attributes
    ----------
    content : bytes
        The document.
    final : bool
        Whether it will not change any more.
    validators : dict[str, str]
        Headers `ETag` and `Last-Modified` that it came with.
    """

    content: bytes
    final: bool
    validators: dict[str, str] = field(default_factory=dict)


class FeedCache:
    """A folder of documents, in the layout of the feed.

    A copy `a.json` has a file `a.json.label` beside it with its SHA-256 and validators. A copy that does
    not fit its label is thrown away with a warning. A cache that cannot be written costs a warning, no more.

    Parameters
    ----------
    folder : Path
        Created when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, path: str) -> KeptDocument | None:
        """Return the copy of the document at `path`, None if there is none that is whole."""
        copy, label = self._files(path)
        try:
            if not (copy.is_file() and label.is_file()):
                return None
            content, text = copy.read_bytes(), label.read_bytes()
        except OSError as error:
            logger.warning("The cached %s cannot be read (%s); the feed is asked anew.", copy, error)
            return None
        try:
            said = _Label.model_validate_json(text)
        except ValidationError:
            self._discard(path, "what lies beside it is damaged")
            return None
        if hashlib.sha256(content).hexdigest() != said.sha256:
            self._discard(path, "its content does not have the hash that it was kept with")
            return None
        return KeptDocument(content, said.final, said.validators)

    def keep(self, path: str, document: KeptDocument) -> None:
        """Keep a copy, replacing the one that is there."""
        copy, label = self._files(path)
        sha256 = hashlib.sha256(document.content).hexdigest()
        validators = {name: value for name, value in document.validators.items() if _is_sane(value)}
        said = _Label(sha256=sha256, final=document.final, validators=validators)
        try:
            write_atomically(copy, document.content)
            write_atomically(label, said.model_dump_json().encode())
        except OSError as error:
            logger.warning("A document of the feed cannot be kept, and is asked for again: %s", error)

    def distrust(self, path: str) -> None:
        """Ask for the document at `path` again although it is final."""
        kept = self.load(path)
        if kept is not None and kept.final:
            self.keep(path, KeptDocument(kept.content, final=False, validators=kept.validators))

    def _files(self, path: str) -> tuple[Path, Path]:
        copy = self.folder / path
        return copy, copy.with_name(f"{copy.name}.label")

    def _discard(self, path: str, reason: str) -> None:
        copy, label = self._files(path)
        logger.warning("The cached %s is thrown away, and the feed is asked anew: %s.", copy, reason)
        try:
            label.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be thrown away: %s", copy, error)


def _is_sane(validator: str) -> bool:
    return validator.isascii() and validator.isprintable() and 0 < len(validator) <= LONGEST_VALIDATOR
