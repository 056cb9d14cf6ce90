"""On-disk cache of documents from the web, each with its hash and its validators for revalidation."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from calibration_pipeline.io.files import write_atomically

logger = logging.getLogger(__name__)

LONGEST_VALIDATOR = 500


class _Label(BaseModel):
    """Metadata file of a copy: hash, finality and validators."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: str
    final: bool
    validators: dict[str, str]


@dataclass(frozen=True)
class KeptDocument:
    """A cached document.

    Attributes
    ----------
    content : bytes
        The document.
    final : bool
        Whether it will not change any more.
    validators : dict[str, str]
        Headers `ETag` and `Last-Modified` of its response.
    """

    content: bytes
    final: bool
    validators: dict[str, str] = field(default_factory=dict)


class FeedCache:
    """Cache of documents in a folder, in the layout of the feed.

    A copy `a.json` has a file `a.json.label` beside it with its SHA-256 and validators. A copy that does
    not match its label is discarded with a warning. A cache that cannot be written costs only a warning.

    Parameters
    ----------
    folder : Path
        Created when a document is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, path: str) -> KeptDocument | None:
        """Return the copy of the document at `path`, None if there is no intact copy."""
        copy, label = self._files(path)
        try:
            if not (copy.is_file() and label.is_file()):
                return None
            content, text = copy.read_bytes(), label.read_bytes()
        except OSError as error:
            logger.warning("The cached %s cannot be read (%s); the document is requested again.", copy, error)
            return None
        try:
            metadata = _Label.model_validate_json(text)
        except ValidationError:
            self._discard(path, "its label is damaged")
            return None
        if hashlib.sha256(content).hexdigest() != metadata.sha256:
            self._discard(path, "its content does not match the hash in its label")
            return None
        return KeptDocument(content, metadata.final, metadata.validators)

    def keep(self, path: str, document: KeptDocument) -> None:
        """Keep a copy, in place of an earlier copy."""
        copy, label = self._files(path)
        sha256 = hashlib.sha256(document.content).hexdigest()
        validators = {name: value for name, value in document.validators.items() if _is_sane(value)}
        metadata = _Label(sha256=sha256, final=document.final, validators=validators)
        try:
            write_atomically(copy, document.content)
            write_atomically(label, metadata.model_dump_json().encode())
        except OSError as error:
            logger.warning(
                "A document of the feed cannot be cached, and is requested again in the next run: %s", error
            )

    def invalidate(self, path: str) -> None:
        """Mark the copy at `path` as not final, so that the document is requested again."""
        kept = self.load(path)
        if kept is not None and kept.final:
            self.keep(path, KeptDocument(kept.content, final=False, validators=kept.validators))

    def _files(self, path: str) -> tuple[Path, Path]:
        copy = self.folder / path
        return copy, copy.with_name(f"{copy.name}.label")

    def _discard(self, path: str, reason: str) -> None:
        copy, label = self._files(path)
        logger.warning("The cached %s is discarded, and the document is requested again: %s.", copy, reason)
        try:
            label.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be discarded: %s", copy, error)


def _is_sane(validator: str) -> bool:
    return validator.isascii() and validator.isprintable() and 0 < len(validator) <= LONGEST_VALIDATOR
