"""Small text files of users, on a disk or at an address, read with a limit."""

from upath import UPath

from calibration_pipeline.io.addresses import without_credentials

MAX_BYTES = 1_000_000


def read_text_file(address: str) -> str:
    """Return the content of a small file in UTF-8; a byte-order mark is dropped.

    Parameters
    ----------
    address : str
        Path, or address of an object store.

    Raises
    ------
    ValueError
        If the file cannot be read, is no text or has more than `MAX_BYTES`.
    """
    try:
        with UPath(address).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except Exception as error:  # file systems raise many types
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"it cannot be read: {without_credentials(reason)}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it must have at most {MAX_BYTES:,} bytes")
    return text
