"""Reading for an actor: each statement goes to the database together with the question who the actor is, as one transaction.

The answer to that question sets the scope of row-level security for the statement behind it, and it must be the answer by which the
policy decided what the statement asks for. If by now it is another one, because a role, an assignment or a session was changed,
what was read is thrown away (`ActorChanged`) and the policy decides anew. So who the actor was at his last request may be
remembered: nothing is answered that was not confirmed in the transaction that read it, and that takes one wait for the database.

Statements that need what an earlier one did in its transaction, such as those of the history, which read what was named, have it
done again in theirs (`execute_first`): it goes in front of them and costs no wait. Its answer must stay what it was, too.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.pq.abc import PGresult
from sqlalchemy.exc import DBAPIError

from hse.adapters.postgres.actors import Entered, entered, entering
from hse.adapters.postgres.pipeline import ConnectionPool, PipelinedConnection, Statement
from hse.adapters.postgres.plans import Plan, Plans
from hse.domain.identity.principals import Principal, SessionPrincipal, Unauthenticated

ACTORS_REMEMBERED_MAX = 2000

# The database's answer to who the actor is, as it came; None when there is no such actor.
Answer = tuple[bytes | None, ...] | None
Rows = list[tuple[bytes | None, ...]]
# By session: what was answered about it, and what that means.
Remembered = dict[UUID, tuple[Answer, Entered]]


class ActorChanged(Exception):
    """The actor is not any more as he was when the policy decided what he may read, or not any more what was named by that."""


class Readers:
    """The pool that is read through, with the plans of the statements and the actors of the last requests."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self._plans = Plans()
        self._remembered: Remembered = {}

    def of_remembered(self, principal: Principal) -> "Reading | None":
        """A reading for the actor as he was at his last request, if he is remembered. A key's use is always asked for first."""
        if not isinstance(principal, SessionPrincipal):
            return None
        known = self._remembered.get(principal.session_id)
        return None if known is None else Reading(self, principal, *known, is_confirmed=False)

    async def of_actor(self, principal: Principal) -> "Reading":
        """A reading for the actor as he is. Raises `Unauthenticated`."""
        started = time.perf_counter()
        plan, enter = self.entering(principal)
        connection, (result,) = await self.fly([enter])
        found = entered(principal, plan.rows(connection, result).one_or_none())
        answer = answer_in(result)
        if isinstance(principal, SessionPrincipal):
            while len(self._remembered) >= ACTORS_REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[principal.session_id] = (answer, found)
        reading = Reading(self, principal, answer, found, is_confirmed=True)
        reading.seconds = time.perf_counter() - started
        return reading

    def forget(self, principal: Principal) -> None:
        """Ask who this is at his next request."""
        if isinstance(principal, SessionPrincipal):
            self._remembered.pop(principal.session_id, None)

    def entering(self, principal: Principal) -> tuple[Plan, Statement]:
        """What begins each transaction of this principal."""
        return self._plans.find(*entering(principal))

    def find_plan(self, statement: sa.Executable, parameters: Mapping[str, Any] | None) -> tuple[Plan, Statement]:
        """The plan of a statement, and what is sent of it. Raises SQLAlchemy's errors."""
        return self._plans.find(statement, parameters)

    async def fly(self, statements: Sequence[Statement]) -> tuple[PipelinedConnection, list[PGresult]]:
        """Send statements as one transaction. Raises SQLAlchemy's errors."""
        try:
            return await self.pool.fly(statements)
        except psycopg.Error as error:
            raise DBAPIError.instance(
                statements[-1][0].decode(), None, error, psycopg.Error, hide_parameters=True
            ) from error


class Reading:
    """What stores read through: it takes the place of a connection, and has of one what reading needs."""

    def __init__(
        self, readers: Readers, principal: Principal, answer: Answer, found: Entered, *, is_confirmed: bool
    ) -> None:
        self.entered = found
        # How long the database took to say who the actor is, together with what was read.
        self.seconds = 0.0
        self._readers = readers
        self._principal = principal
        self._answer = answer
        self._is_confirmed = is_confirmed
        # What goes in front of every statement, and what it answered.
        self._first: tuple[Statement, Rows] | None = None

    async def execute(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, Any] | None = None,
        *,
        behind: sa.Executable | None = None,
    ) -> sa.Result[Any]:
        """Run a statement for the actor, `behind` another one, such as a setting, in the same transaction.

        Raises `ActorChanged`, `Unauthenticated` and SQLAlchemy's errors.
        """
        plan, sent = self._readers.find_plan(statement, parameters)
        before = () if behind is None else (self._readers.find_plan(behind, None)[1],)
        connection, results = await self._fly(*before, sent)
        return plan.rows(connection, results[-1])

    async def execute_first(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.Result[Any]:
        """Run a statement, and run it again in front of each later one, in the same transaction; until there is another first one.

        Raises `ActorChanged`, then also when it answers something else than now; `Unauthenticated` and SQLAlchemy's errors.
        """
        plan, sent = self._readers.find_plan(statement, parameters)
        self._first = None
        connection, results = await self._fly(sent)
        self._first = (sent, rows_in(results[-1]))
        return plan.rows(connection, results[-1])

    async def confirm(self) -> None:
        """See that the actor is who he was taken for, unless a statement did. Raises `ActorChanged`, `Unauthenticated`."""
        if not self._is_confirmed:
            await self._fly()

    async def _fly(self, *statements: Statement) -> tuple[PipelinedConnection, list[PGresult]]:
        started = time.perf_counter()
        _, enter = self._readers.entering(self._principal)
        first = () if self._first is None else (self._first[0],)
        connection, results = await self._readers.fly([enter, *first, *statements])
        answer = answer_in(results[0])
        if answer != self._answer:
            self._readers.forget(self._principal)
            raise Unauthenticated if answer is None else ActorChanged
        if self._first is not None and rows_in(results[1]) != self._first[1]:
            raise ActorChanged
        self._is_confirmed = True
        self.seconds = self.seconds or time.perf_counter() - started
        return connection, results


def answer_in(result: PGresult) -> Answer:
    """The one row of a result, as it came."""
    rows = rows_in(result)
    return rows[0] if rows else None


def rows_in(result: PGresult) -> Rows:
    """The rows of a result, as they came."""
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
