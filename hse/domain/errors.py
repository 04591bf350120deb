"""What every refusal of the domain carries. How it is shown to people and programs is decided in the api."""

from enum import Enum
from typing import ClassVar


class ErrorKind(Enum):
    """What the caller can do about a refusal."""

    INVALID = "invalid"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"


class DomainError(Exception):
    """A request that the domain refuses; `code` is stable and unique, retired codes are not reused."""

    kind: ClassVar[ErrorKind]
    code: ClassVar[str]
