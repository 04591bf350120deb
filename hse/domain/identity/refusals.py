"""What is refused of who may be made what. Several parts of the noun raise these."""

from typing import ClassVar

from hse.domain.errors import DomainError, ErrorKind


class NotYourself(DomainError):
    """Nobody changes his own role or assignments, and nobody disables or deletes himself."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "users.yourself"

    def __init__(self) -> None:
        super().__init__("you cannot do this to yourself: ask somebody who looks after you")


class AboveYou(DomainError):
    """The person or the role stands higher than the caller."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "users.above-you"

    def __init__(self, entity: str) -> None:
        super().__init__(f"this {entity} stands above your own role")
        self.entity = entity


class BeyondYourEstablishments(DomainError):
    """An admin of some establishments acts on people, and changes roles, that lie wholly within these."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "users.beyond-your-establishments"

    def __init__(self, entity: str) -> None:
        super().__init__(
            f"this {entity} counts at establishments that you do not look after: ask the chief administrator"
        )
        self.entity = entity


class LastRoot(DomainError):
    """One active root stays, whatever happens: without it nobody could make another."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "users.last-root"

    def __init__(self) -> None:
        super().__init__("this is the last active root: make another one first")


class ChiefNotYours(DomainError):
    """A chief administrator is made by root, a partner or another chief."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "users.chief-not-yours"

    def __init__(self) -> None:
        super().__init__("only root, a partner or a chief administrator gives somebody all establishments")


class NotHeld(DomainError):
    """Nobody grants what he does not hold himself, at the place that it is granted for."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "roles.action-not-held"

    def __init__(self, action: str) -> None:
        super().__init__(f"you do not hold {action} there yourself, so you cannot grant it")
        self.action = action


class Exclusive(DomainError):
    """An action that is exclusive to one level is put into no role of another."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "roles.action-exclusive"

    def __init__(self, action: str) -> None:
        super().__init__(f"{action} is exclusive to a system role of another level")
        self.action = action


class NotForHierarchy(DomainError):
    """An action that roles so far down may not hold."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "roles.action-not-for-hierarchy"

    def __init__(self, action: str) -> None:
        super().__init__(f"{action} is not for roles of this hierarchy")
        self.action = action


class SystemRoleFixed(DomainError):
    """System roles have their name and level for good; what they hold is changed with manage_system_roles, root's never."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "roles.system-fixed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is a system role: {reason}")


class RoleDoesNotFit(DomainError):
    """The role is not one for somebody who belongs there."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "roles.does-not-fit"

    def __init__(self, reason: str) -> None:
        super().__init__(f"this role does not fit: {reason}")
