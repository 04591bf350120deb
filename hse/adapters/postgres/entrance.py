"""The transaction of who has not said yet who he is."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.authentication import Accounts, SessionKeeper
from hse.adapters.postgres.mail import Outbox, OutgoingMail
from hse.adapters.postgres.password_resets import PasswordResets
from hse.adapters.postgres.work import Origin, add_audit_entry
from hse.domain.work import Record


class PostgresEntranceWork:
    """The transaction of who has not said yet who he is. Nothing is kept unless `commit` was called."""

    def __init__(self, connection: AsyncConnection, origin: Origin, now: datetime, outbox: Outbox) -> None:
        self.connection = connection
        self.origin = origin
        self.now = now
        self.outbox = outbox

    @property
    def accounts(self) -> Accounts:
        """What users prove themselves with."""
        return Accounts(self.connection, self.origin.address)

    @property
    def sessions(self) -> SessionKeeper:
        """The sessions."""
        return SessionKeeper(self.connection, self.origin.address, self.now)

    @property
    def resets(self) -> PasswordResets:
        """Links for a new password."""
        return PasswordResets(self.connection, self.accounts)

    @property
    def mail(self) -> OutgoingMail:
        """The letters that this transaction sends."""
        return OutgoingMail(self.connection, self.outbox)

    def new_id(self) -> UUID:
        """An id that nothing has."""
        return uuid4()

    async def record(self, record: Record, user_id: UUID | None) -> None:
        """Write to the audit log."""
        await add_audit_entry(self.connection, record, self.origin, None, user_id=user_id)

    async def commit(self) -> None:
        """Keep what was done."""
        await self.connection.commit()
