"""API keys: what a program acts with in the name of a person, with a part of what he may do.

A key is for work and not for the account: it makes no keys, and touches nobody's passwords, second factors, sessions or keys. The
list of what it never holds is `NOT_FOR_KEYS` in `hse.domain.policy`; what needs no action at all asks `Actor.require_person`.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Forbidden, Invalid, NotFound
from hse.domain.identity.ports import IdentityWork
from hse.domain.identity.users import person_to_see_to, person_within_act
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import EVERYWHERE, NOT_FOR_KEYS, Actor, Reach
from hse.domain.work import UNCHANGED, Unchanged, changes_of

# Who may end somebody's sessions may see his keys, and revoke them.
ACTION = "manage_user_sessions"
LIVE_KEYS_MAX = 50
REQUESTS_PER_MINUTE = 600


class TooManyApiKeys(DomainError):
    """A person has fifty live keys at most."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "api-keys.too-many"

    def __init__(self) -> None:
        super().__init__(f"you have {LIVE_KEYS_MAX} API keys: revoke one that is not used any more")


class ApiKeyNotYours(DomainError):
    """A key acts in its owner's name, so he alone says what it may do; who looks after him may revoke it."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "api-keys.not-yours"

    def __init__(self) -> None:
        super().__init__("only its owner changes an API key: you may revoke it")


class ApiKeyRevoked(DomainError):
    """A key that was revoked stays as it was."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "api-keys.revoked"

    def __init__(self) -> None:
        super().__init__("this API key was revoked: make a new one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it may be shown. `prefix` is the part between the underscores, by which it is found in a program's settings."""

    id: UUID
    user_id: UUID
    name: str
    prefix: str
    actions: list[str]
    requests_per_minute: int
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    use_count: int
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedApiKey:
    """A new key with its text, which is told this once."""

    api_key: ApiKey
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKey:
    """A key to be made."""

    name: str
    actions: list[str]
    expires_at: datetime | None = None
    requests_per_minute: int = REQUESTS_PER_MINUTE
    requests_per_minute_max: int = REQUESTS_PER_MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeApiKey:
    """What changes of a key; `actions` is all that it is to hold."""

    name: str | Unchanged = UNCHANGED
    actions: list[str] | Unchanged = UNCHANGED
    expires_at: datetime | Unchanged | None = UNCHANGED
    requests_per_minute: int | Unchanged = UNCHANGED
    requests_per_minute_max: int = REQUESTS_PER_MINUTE


class ApiKeyStore(Protocol):
    """The keys. Every change is written to the audit log with it."""

    async def find(self, entity_id: UUID, reach: Reach) -> ApiKey | None:
        """A key whose owner is within the reach."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[ApiKey]:
        """A page of the keys whose owners are within the reach."""

    async def count_live(self, user_id: UUID, now: datetime) -> int:
        """How many keys of a user can be used."""

    async def issue(self, values: dict[str, Any]) -> IssuedApiKey:
        """Add a key with a new secret."""

    async def change(self, before: ApiKey, changes: dict[str, Any], *, version: int | None = None) -> ApiKey:
        """Change a key; with `version` only while it has that one. Raises `Stale`."""

    async def revoke(self, key: ApiKey, now: datetime) -> None:
        """End a key."""


class ApiKeysWork(IdentityWork, Protocol):
    """A transaction with the keys."""

    @property
    def api_keys(self) -> ApiKeyStore:
        """The keys."""


async def create_api_key(work: ApiKeysWork, command: CreateApiKey) -> IssuedApiKey:
    """Make a key of one's own, with actions that one holds. Raises `Forbidden`, `NotForKeys`, `Invalid`, `TooManyApiKeys`."""
    actor = work.actor
    actor.require_person()
    actor.require("create_api_key")
    _check_actions(actor, command.actions)
    _check_expiry(command.expires_at, work.now)
    _check_rate(command.requests_per_minute, command.requests_per_minute_max)
    if await work.api_keys.count_live(actor.user_id, work.now) >= LIVE_KEYS_MAX:
        raise TooManyApiKeys
    return await work.api_keys.issue(
        {
            "user_id": actor.user_id,
            "name": command.name,
            "actions": sorted(set(command.actions)),
            "expires_at": command.expires_at,
            "requests_per_minute": command.requests_per_minute,
        }
    )


async def change_api_key(
    work: ApiKeysWork, api_key_id: UUID, command: ChangeApiKey, *, version: int | None = None
) -> ApiKey:
    """Change a key of one's own, from its next request on; its text stays.

    Raises `NotFound`, `Forbidden`, `NotForKeys`, `ApiKeyNotYours`, `ApiKeyRevoked`, `Invalid`, `Stale`.
    """
    before = await _key_to_change(work, api_key_id)
    if before.user_id != work.actor.user_id:
        raise ApiKeyNotYours
    work.actor.require("create_api_key")
    if before.revoked_at is not None:
        raise ApiKeyRevoked
    changes = changes_of(command)
    most = changes.pop("requests_per_minute_max")
    if "actions" in changes:
        _check_actions(work.actor, changes["actions"])
        changes["actions"] = sorted(set(changes["actions"]))
    if "expires_at" in changes:
        _check_expiry(changes["expires_at"], work.now)
    if "requests_per_minute" in changes:
        _check_rate(changes["requests_per_minute"], most)
    return await work.api_keys.change(before, changes, version=version)


async def own_api_keys(work: ApiKeysWork, query: PageQuery) -> Page[ApiKey]:
    """A page of one's own keys, the revoked ones too. Raises `NotForKeys`, `Invalid`."""
    work.actor.require_person()
    return await work.api_keys.page(EVERYWHERE, _of(query, work.actor.user_id))


async def api_keys_of(work: ApiKeysWork, user_id: UUID, query: PageQuery) -> Page[ApiKey]:
    """A page of somebody's keys.

    Raises `NotFound` for whom one may not see, `Forbidden`, `NotForKeys`, `AboveYou`, `BeyondYourEstablishments`, `Invalid`.
    """
    actor = work.actor
    if user_id == actor.user_id:
        return await own_api_keys(work, query)
    person = await person_to_see_to(work, user_id, act=ACTION)
    return await work.api_keys.page(actor.reach(ACTION), _of(query, person.id))


async def api_key(work: ApiKeysWork, api_key_id: UUID) -> ApiKey:
    """A key of one's own, or of somebody whose keys one looks after.

    Raises `NotFound`, `Forbidden`, `NotForKeys`, `AboveYou`, `BeyondYourEstablishments`.
    """
    actor = work.actor
    actor.require_person()
    found = await work.api_keys.find(api_key_id, EVERYWHERE)
    if found is None:
        raise NotFound("api_key", api_key_id)
    if found.user_id != actor.user_id:
        # Who may not see somebody is not told that he has a key.
        if await work.users.find(found.user_id, actor.reach("read_user")) is None:
            raise NotFound("api_key", api_key_id)
        await person_to_see_to(work, found.user_id, act=ACTION)
    return found


async def _key_to_change(work: ApiKeysWork, api_key_id: UUID) -> ApiKey:
    """The same, for who changes it: its owner, when that is another, stays until then as he is."""
    found = await api_key(work, api_key_id)
    if found.user_id != work.actor.user_id:
        await person_within_act(work, found.user_id, act=ACTION)
    return found


async def revoke_api_key(work: ApiKeysWork, api_key_id: UUID) -> None:
    """End a key, from its next request on; once more is no mistake.

    Raises `NotFound`, `Forbidden`, `NotForKeys`, `AboveYou`, `BeyondYourEstablishments`.
    """
    found = await _key_to_change(work, api_key_id)
    if found.revoked_at is None:
        await work.api_keys.revoke(found, work.now)


def _check_actions(actor: Actor, actions: list[str]) -> None:
    if not actions:
        raise Invalid("actions", "name what the key is for")
    for action in actions:
        if action in NOT_FOR_KEYS:
            raise Invalid("actions", f"{action} is for people, no key holds it")
        if action not in actor.all_actions:
            raise Forbidden(action)


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at", "lies in the past")


def _check_rate(requests_per_minute: int, most: int) -> None:
    if not 1 <= requests_per_minute <= most:
        raise Invalid("requests_per_minute", f"between 1 and {most}")


def _of(query: PageQuery, user_id: UUID) -> PageQuery:
    return replace(query, filters={**query.filters, "user_id": user_id})
