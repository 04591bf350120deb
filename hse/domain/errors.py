"""What every refusal of the domain carries, and the refusals that any noun may need. How they are shown is decided in the api."""

from enum import Enum
from typing import ClassVar


class ErrorKind(Enum):
    """What the caller can do about a refusal."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_MANY = "too-many"
    UNAVAILABLE = "unavailable"


class DomainError(Exception):
    """A request that the domain refuses; `code` is stable and unique, retired codes are not reused.

    What an error sets on itself is told to the caller, so it holds nothing that he may not see.
    """

    kind: ClassVar[ErrorKind]
    code: ClassVar[str]


class Invalid(DomainError):
    """A field does not hold what it must."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "request.invalid"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotFound(DomainError):
    """There is no such thing, or none that the caller may see: the two are one answer."""

    kind: ClassVar[ErrorKind] = ErrorKind.NOT_FOUND
    code: ClassVar[str] = "resource.not-found"

    def __init__(self, entity: str, entity_id: object) -> None:
        super().__init__(f"there is no {entity} {entity_id}, or you may not see it")
        self.entity = entity
        self.entity_id = str(entity_id)


class Forbidden(DomainError):
    """The caller may see the thing and not do this to it, or lacks the action altogether."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "permission.missing"

    def __init__(self, action: str) -> None:
        super().__init__(f"you need the permission {action} for this")
        self.action = action


class Taken(DomainError):
    """Another one has this name, number or address already."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "resource.taken"

    def __init__(self, entity: str, field: str) -> None:
        super().__init__(f"another {entity} has this {field}: choose another")
        self.entity = entity
        self.field = field


class InUse(DomainError):
    """Something still hangs on the thing that is to be deleted."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "resource.in-use"

    def __init__(self, entity: str, by: str) -> None:
        super().__init__(f"this {entity} still has {by}: move or delete them first")
        self.entity = entity
        self.by = by


class Stale(DomainError):
    """The thing was changed since the caller read it; the change was not made."""

    kind: ClassVar[ErrorKind] = ErrorKind.STALE
    code: ClassVar[str] = "resource.stale"

    def __init__(self, entity: str) -> None:
        super().__init__(
            f"this {entity} was changed meanwhile: read it again, and repeat the change with its new version"
        )
        self.entity = entity


class Contended(DomainError):
    """Somebody changed the same things at the same moment, and one of the two had to give way; nothing was done."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "resource.contended"

    def __init__(self) -> None:
        super().__init__("somebody else changed the same things at this moment, and nothing was done: send it again")


class TooMany(DomainError):
    """The caller asks more often than he may; `limit` says which count is full: his address, his user or his key."""

    kind: ClassVar[ErrorKind] = ErrorKind.TOO_MANY
    code: ClassVar[str] = "request.too-many"

    def __init__(self, limit: str, retry_after_seconds: int) -> None:
        super().__init__(f"too many requests of this {limit}: try again in {retry_after_seconds} s")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds
