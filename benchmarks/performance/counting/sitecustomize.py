"""Count the transactions that processes commit to SQLite: a byte a commit in the file COUNTED_COMMITS.

Python imports this module when it starts, if its folder is in PYTHONPATH.
"""

import os
import sqlite3
from typing import Any

_counts = os.open(os.environ["COUNTED_COMMITS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_connect = sqlite3.connect


class _Counting(sqlite3.Connection):
    def commit(self) -> None:
        if self.in_transaction:
            os.write(_counts, b".")
        super().commit()


def _counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
    return _connect(*arguments, factory=_Counting, **options)


sqlite3.connect = sqlite3.dbapi2.connect = _counting
