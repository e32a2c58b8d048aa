"""Found on its PYTHONPATH by a worker that a test starts: its clock is CLOCK_OFFSET seconds off."""

import datetime
import os
import sqlite3  # noqa: F401 - it learns of the right class before that is replaced
import time
from typing import Any

OFFSET = float(os.environ["CLOCK_OFFSET"])
read_clock = time.time


class AnyDateTime(type):
    """What C code made, which knows nothing of the class below, is a datetime too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, RIGHT_DATETIME)


RIGHT_DATETIME = datetime.datetime


class WrongDateTime(datetime.datetime, metaclass=AnyDateTime):
    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        return RIGHT_DATETIME(*arguments, **keywords)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return RIGHT_DATETIME.now(tz) + datetime.timedelta(seconds=OFFSET)


time.time = lambda: read_clock() + OFFSET
datetime.datetime = WrongDateTime  # type: ignore[misc]
