"""Commands that are sent whatever is away, what became of them, and afterwards the judgement.

Every command carries a number of its own, which grows with each command of a device: so it is seen whether one was done twice under
different ids, and in which order. The rule is a pure function; reading the database is apart.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import httpx

from tests.api.world import TOKENS, Person
from tests.faults.asking import CALL_SECONDS_MAX, answer_of
from tests.faults.conditions import until_in_thread
from tests.faults.database import Database

ENDS = frozenset({"succeeded", "failed", "timed_out", "expired", "cancelled"})
RANKS = {"queued": 0, "sent": 1, "delivered": 2, **dict.fromkeys(ENDS, 3)}

# Written by a trigger, so that no state is missed, whoever writes it.
WATCH = """
create table watched_states (id bigserial primary key, command_id uuid not null, state text not null);
create function watch_states() returns trigger language plpgsql security definer as $$
begin
    if tg_op = 'INSERT' or new.state <> old.state then
        insert into watched_states (command_id, state) values (new.id, new.state);
    end if;
    return null;
end
$$;
create trigger watch_states after insert or update on device_commands for each row execute function watch_states();
"""
UNWATCH = "drop trigger watch_states on device_commands; drop function watch_states(); drop table watched_states"
KEPT = """
select id, device_id, type, (params ->> 'number')::int, state, status,
       array(select w.state from watched_states w where w.command_id = c.id order by w.id)
  from device_commands c where device_id = any(%s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCommand:
    """A command as the database has it, with every state that it had."""

    id: UUID
    device_id: UUID
    kind: str
    number: int
    state: str
    status: int | None
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that the api has taken, under the id that it answered."""

    device_id: UUID
    number: int
    id: UUID


@dataclass(frozen=True, slots=True)
class Done:
    """What a device was told to do, at its place in the order in which it heard of it."""

    device_id: UUID
    number: int
    id: UUID


@dataclass
class Commander:
    """Somebody who sends commands over REST. What was not answered is asked again, under the same Idempotency-Key."""

    url: str
    person: Person
    sent: list[Sent] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    _numbers: Counter[UUID] = field(default_factory=Counter)

    def headers(self) -> dict[str, str]:
        """What his requests carry; a token lives for minutes only."""
        return {"Authorization": f"Bearer {TOKENS.issue(self.person.id, self.person.session_id, datetime.now(UTC))}"}

    async def send(self, device_id: UUID, kind: str = "do", *, timeout_seconds: int) -> UUID:
        """Have a command taken, however long it takes."""
        self._numbers[device_id] += 1
        number = self._numbers[device_id]
        body = {"type": kind, "params": {"number": number}, "timeout_seconds": timeout_seconds}
        path = f"/api/v1/devices/{device_id}/commands"

        def headers() -> dict[str, str]:
            return {"Idempotency-Key": f"{device_id}-{number}", **self.headers()}

        async with httpx.AsyncClient(base_url=self.url, timeout=CALL_SECONDS_MAX) as client:
            taken = await answer_of(client, path, body, headers=headers, failed=self._note)
        command_id = UUID(taken["id"])
        self.sent.append(Sent(device_id, number, command_id))
        return command_id

    def _note(self, problem: httpx.Response | httpx.TransportError) -> None:
        name = str(problem.status_code) if isinstance(problem, httpx.Response) else type(problem).__name__
        self.problems[name] += 1


@contextlib.contextmanager
def watched_states(database: Database) -> Iterator[None]:
    """Write down every state of every command while the block runs."""
    database.execute(WATCH)
    try:
        yield
    finally:
        database.execute(UNWATCH)


def read_commands(database: Database, devices: Sequence[UUID]) -> list[KeptCommand]:
    """Read what the database holds of these devices' commands."""
    return [
        KeptCommand(id=UUID(str(row[0])), device_id=UUID(str(row[1])), kind=str(row[2]), number=int(str(row[3])),
                    state=str(row[4]), status=None if row[5] is None else int(str(row[5])), states=tuple(row[6]))  # type: ignore[arg-type]
        for row in database.execute(KEPT, [list(devices)])
    ]  # fmt: skip


async def until_ended(database: Database, devices: Sequence[UUID], *, seconds: float) -> None:
    """Wait until no command of these devices is unfinished."""
    unfinished = "select count(*) from device_commands where device_id = any(%s) and finished_at is null"
    await until_in_thread(
        lambda: database.execute(unfinished, [list(devices)]) == [(0,)], "every command has ended", seconds=seconds
    )


def violations(sent: Sequence[Sent], kept: Sequence[KeptCommand], done: Mapping[UUID, Sequence[Done]]) -> list[str]:
    """Return every broken promise as a sentence. `done` holds for each device what it did, in order."""
    found = []
    by_id = {one.id: one for one in kept}
    ids = {(one.device_id, one.number): one.id for one in sent}
    found += [f"{one} was taken and is not there" for one in sent if one.id not in by_id]
    for (device_id, number), count in Counter((one.device_id, one.number) for one in kept).items():
        if count > 1:
            found.append(f"command {number} to {device_id} is there {count} times")
    for device_id, deeds in done.items():
        numbers = [one.number for one in deeds]
        found += [f"{one} was done, and another device was told" for one in deeds if one.device_id != device_id]
        found += [
            f"{one} was done, and sent under another id" for one in deeds if ids.get((device_id, one.number)) != one.id
        ]
        if twice := [number for number, count in Counter(numbers).items() if count > 1]:
            found.append(f"{device_id} did {twice} twice")
        if numbers != sorted(numbers):
            found.append(f"{device_id} did its commands out of order: {numbers}")
    done_ids = {one.id for deeds in done.values() for one in deeds}
    for one in kept:
        found += [f"{one}: {sentence}" for sentence in _lies(one, is_done=one.id in done_ids)]
    return found


def _lies(command: KeptCommand, *, is_done: bool) -> Iterator[str]:
    """What is not true of the states of a command."""
    states = command.states
    ranks = [RANKS[state] for state in states]
    if not states or states[0] != "queued" or ranks != sorted(set(ranks)):
        yield "its states do not go forward, once each"
    if command.state not in ENDS:
        yield "it has not ended"
    if not states or states[-1] != command.state:
        yield "its last state is another"
    if command.state in ("succeeded", "failed") and not is_done:
        yield "nobody has done it"
    if command.state in ("expired", "cancelled") and is_done:
        yield "it was done all the same"
    if command.state == "succeeded" and (command.kind != "do" or command.status != 0):
        yield "the device did not say so"
    if command.state == "failed" and (command.kind != "fail" or command.status != 7):
        yield "the device did not say that it failed"
