"""Invitations: who may invite whom to what, the link that is good for one use, and what it tells whom."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.inviting import EMAIL, answer, execute, invite, role_ids, token_sent
from tests.api.mailboxes import letters_to
from tests.api.world import PASSWORD, World

UNKNOWN = (404, "invitations.unknown")


@pytest.fixture
def roles(world: World) -> dict[str, UUID]:
    """The system roles by name, and the custom ones of the world."""
    return role_ids(world)


async def test_who_is_invited_learns_to_what_accepts_and_signs_in(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    site = str(world.tenant.sites[0].id)
    made = await invite(api, world.chief, roles["user"], establishment_ids=[site])
    assert made.status_code == 201, made.text
    (text,) = letters_to(world.database_url, EMAIL)
    for told in ("Nora", "Ana Soto (chief@example.com)", "Acme", "user", "https://hse.example.com/invitations#token="):
        assert told in text
    token = token_sent(world)
    assert token not in made.text, "the inviter does not learn it"
    offer = (await answer(api, "preview", token)).json()
    assert (offer["organization"], offer["role"], offer["invited_by"], offer["email"]) == (
        "Acme",
        "user",
        "Ana Soto",
        EMAIL,
    )
    accepted = await answer(api, "accept", token, first_name="Eleonora")
    assert accepted.status_code == 201, accepted.text
    signed_in = await api.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})
    headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    seen = await api.get("/api/v1/establishments", headers=headers)
    assert [item["id"] for item in seen.json()["items"]] == [site]
    person = (await api.get(f"/api/v1/users/{accepted.json()['user_id']}", headers=world.chief.headers)).json()
    assert (person["first_name"], person["last_name"], person["email_verified"]) == ("Eleonora", "Paz", True)
    after = (await api.get(f"/api/v1/invitations/{made.json()['id']}", headers=world.chief.headers)).json()
    assert (after["status"], after["user_id"]) == ("accepted", person["id"])


async def test_invitations_are_made_within_what_the_inviter_may_give(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    first, second = ([str(site.id)] for site in world.tenant.sites)
    own, foreign = {"organization_id": str(world.tenant.id)}, {"organization_id": str(world.other_tenant.id)}
    own_partner = {"partner_company_id": str(world.partner_company)}
    unfit, unseen, above = (409, "roles.does-not-fit"), (404, "resource.not-found"), (403, "users.above-you")
    table: list[tuple[str, str, dict[str, Any], tuple[int, str] | None]] = [
        ("root", "root", {}, None),
        ("root", "root", own, unfit),
        ("root", "partner", own_partner, None),
        ("root", "partner", own, unfit),
        ("root", "admin", own, None),
        ("root", "admin", {}, (422, "request.invalid")),
        ("root", "admin", {**own, **own_partner}, (422, "request.invalid")),
        ("root", "second keeper", own, unfit),
        (
            "root",
            "admin",
            {**own, "establishment_ids": [str(world.other_tenant.sites[0].id)]},
            (422, "request.invalid"),
        ),
        ("partner", "partner", {}, None),
        ("partner", "admin", {**own, "has_all_establishments": True}, None),
        ("partner", "admin", {}, (422, "request.invalid")),
        ("partner", "root", {}, above),
        ("partner", "admin", foreign, unseen),
        ("partner", "partner", {"partner_company_id": str(world.other_partner_company)}, unseen),
        ("chief", "admin", {"has_all_establishments": True}, None),
        ("chief", "user", {"has_all_establishments": True}, (422, "request.invalid")),
        ("chief", "partner", {}, above),
        ("chief", "partner", own_partner, unseen),
        ("chief", "admin", foreign, unseen),
        ("chief", "foreign keeper", {}, unseen),
        ("chief", "device keeper", {"establishment_ids": [*first, *second]}, None),
        ("chief", "user", {"establishment_ids": [*first, *first]}, (422, "request.invalid")),
        ("admin", "admin", {"establishment_ids": first}, None),
        ("admin", "user", {"establishment_ids": second}, unseen),
        ("admin", "admin", {"has_all_establishments": True}, (403, "users.chief-not-yours")),
        ("admin", "second keeper", {}, unseen),
        ("user", "user", {}, (403, "permission.missing")),
        ("custom", "user", {}, (403, "permission.missing")),
    ]
    for number, (by, role, more, refusal) in enumerate(table):
        response = await invite(api, getattr(world, by), roles[role], **more, email=f"n{number}@example.org")
        if refusal is None:
            assert response.status_code == 201, (by, role, more, response.text)
        else:
            problem_of(response, *refusal)


async def test_an_invitation_is_made_once_an_address_and_entity_and_never_to_a_disabled_one(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    assert (await invite(api, world.chief, roles["user"])).status_code == 201
    problem_of(await invite(api, world.chief, roles["user"], email=EMAIL.upper()), 409, "resource.taken")
    assert (await invite(api, world.other_chief, roles["user"])).status_code == 201, "another tenant does not notice"
    execute(world, "update organizations set is_active = false where id = %s", world.other_tenant.id)
    there = {"organization_id": str(world.other_tenant.id), "email": "x@example.org"}
    problem_of(await invite(api, world.root, roles["user"], **there), 422, "request.invalid")


async def test_whether_an_address_has_an_account_only_the_holder_of_the_token_learns(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    known, unknown = world.other_chief.email, EMAIL
    answers = [await invite(api, world.chief, roles["user"], email=email) for email in (known, unknown)]
    told = [
        {**one.json(), "id": "", "email": "", "created_at": "", "updated_at": "", "expires_at": ""} for one in answers
    ]
    assert [one.status_code for one in answers] == [201, 201]
    assert told[0] == told[1]
    token = token_sent(world, known)
    problem_of(await answer(api, "accept", token), 409, "invitations.account-exists")
    listed = await api.get("/api/v1/invitations", headers=world.chief.headers, params={"q": known})
    assert listed.json()["items"][0]["status"] == "pending"


async def test_of_many_who_accept_at_once_one_comes_in(api: Client, world: World, roles: dict[str, UUID]) -> None:
    await invite(api, world.chief, roles["user"])
    token = token_sent(world)
    answers = await asyncio.gather(*(answer(api, "accept", token) for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [201, 404, 404, 404]
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select count(*) from users where email = %s", [EMAIL]).fetchone() == (1,)


async def test_a_token_that_does_not_hold_has_one_answer(api: Client, world: World, roles: dict[str, UUID]) -> None:
    """Unknown, expired, used, revoked, rejected or sent anew: who tries tokens learns nothing."""
    tokens = {"unknown": "x" * 43}
    for number, way in enumerate(("expired", "accepted", "revoked", "rejected", "resent")):
        email = f"{way}@example.org"
        made = await invite(api, world.chief, roles["user"], email=email)
        path, headers = f"/api/v1/invitations/{made.json()['id']}", world.chief.headers
        tokens[way] = token_sent(world, email)
        if way == "expired":
            execute(world, "update invitations set expires_at = now() where email = %s", email)
        elif way == "accepted":
            assert (await answer(api, "accept", tokens[way])).status_code == 201
        elif way == "rejected":
            assert (await answer(api, "reject", tokens[way])).status_code == 204
        else:
            done = await api.post(f"{path}/{'revoke' if way == 'revoked' else 'resend'}", headers=headers)
            assert done.status_code == 200, (number, done.text)
    bodies = set()
    for token in tokens.values():
        for way in ("preview", "accept", "reject"):
            response = await answer(api, way, token)
            problem = problem_of(response, *UNKNOWN)
            bodies.add((problem["title"], problem["detail"]))
    assert len(bodies) == 1


async def test_a_link_sent_anew_kills_the_old_one_and_holds_itself(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    made = (await invite(api, world.chief, roles["user"])).json()
    old = token_sent(world)
    again = await api.post(f"/api/v1/invitations/{made['id']}/resend", headers=world.chief.headers)
    assert again.json()["sent_count"] == 2
    new = token_sent(world)
    assert new != old
    problem_of(await answer(api, "preview", old), *UNKNOWN)
    assert (await answer(api, "preview", new)).status_code == 200
    execute(world, "update invitations set sent_count = 10")
    too_often = await api.post(f"/api/v1/invitations/{made['id']}/resend", headers=world.chief.headers)
    problem_of(too_often, 409, "invitations.sent-too-often")


async def test_who_may_not_act_on_an_invitation_is_refused(api: Client, world: World, roles: dict[str, UUID]) -> None:
    second = [str(world.tenant.sites[1].id)]
    made = (await invite(api, world.chief, roles["user"], establishment_ids=second)).json()
    path = f"/api/v1/invitations/{made['id']}"
    for way in ("resend", "revoke"):
        for person, status, code in (
            (world.admin, 403, "users.beyond-your-establishments"),
            (world.other_chief, 404, "resource.not-found"),
            (world.user, 404, "resource.not-found"),
        ):
            problem_of(await api.post(f"{path}/{way}", headers=person.headers), status, code)
    shown = await api.get(path, headers=world.admin.headers)
    assert shown.json()["establishment_ids"] == [], "he does not see where"
    assert (await api.post(f"{path}/revoke", headers=world.other_site_admin.headers)).status_code == 200
    problem_of(await api.post(f"{path}/revoke", headers=world.chief.headers), 409, "invitations.answered")
    problem_of(await api.get(path, headers=world.other_chief.headers), 404, "resource.not-found")


async def test_a_weak_password_is_refused_and_the_link_still_holds(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    await invite(api, world.chief, roles["user"])
    token = token_sent(world)
    for password in ("short", "password1234", "nora-paz-nora-paz"):
        problem_of(await answer(api, "accept", token, password=password), 422, "identity.weak-password")
    assert (await answer(api, "accept", token)).status_code == 201


async def test_an_establishment_that_is_gone_keeps_nobody_out(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    place = {"organization_id": str(world.tenant.id), "name": "Acme 3", "timezone": "UTC"}
    site = (await api.post("/api/v1/establishments", headers=world.chief.headers, json=place)).json()["id"]
    await invite(api, world.chief, roles["user"], establishment_ids=[site, str(world.tenant.sites[0].id)])
    assert (await api.delete(f"/api/v1/establishments/{site}", headers=world.chief.headers)).status_code == 204
    accepted = await answer(api, "accept", token_sent(world))
    path = f"/api/v1/users/{accepted.json()['user_id']}/establishments"
    assert len((await api.get(path, headers=world.chief.headers)).json()["items"]) == 1


async def test_a_role_with_a_pending_invitation_counts_where_that_says(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    """Else an admin would give its holder-to-be something at establishments that he does not look after."""
    await invite(api, world.chief, roles["device keeper"], establishment_ids=[str(world.tenant.sites[1].id)])
    path, body = f"/api/v1/roles/{world.custom_role}", {"actions": ["read_area"]}
    beyond = (403, "users.beyond-your-establishments")
    problem_of(await api.patch(path, headers=world.admin.headers, json=body), *beyond)
    spare = {"name": "spare", "actions": []}
    offered = (await api.post("/api/v1/roles", headers=world.chief.headers, json=spare)).json()["id"]
    await invite(api, world.chief, offered, establishment_ids=[str(world.tenant.sites[1].id)], email="x@example.org")
    path = f"/api/v1/roles/{offered}"
    problem_of(await api.delete(path, headers=world.admin.headers), *beyond)
    assert (await api.delete(path, headers=world.other_site_admin.headers)).status_code == 204


async def test_an_invitation_to_what_stands_higher_is_not_sent_again(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    """Nobody can make one; it is refused all the same should one be there."""
    made = (await invite(api, world.chief, roles["user"])).json()
    execute(world, "update invitations set role_id = %s", roles["partner"])
    path = f"/api/v1/invitations/{made['id']}/resend"
    problem_of(await api.post(path, headers=world.chief.headers), 403, "users.above-you")


def num_waiting(world: World) -> int:
    """How many transactions wait for a lock in this test's database."""
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("first", "then", "held"),
    [
        # Held up when it has the invitation and not yet the role, and the other way round.
        ("accept", "delete", "lock table users in share row exclusive mode"),
        ("delete", "accept", "select from roles where name = 'spare' for key share"),
    ],
)
async def test_who_accepts_while_the_role_is_deleted_gets_it_or_a_clear_refusal(
    api: Client, world: World, first: str, then: str, held: str
) -> None:
    body = {"name": "spare", "actions": ["read_area"]}
    spare = (await api.post("/api/v1/roles", headers=world.chief.headers, json=body)).json()["id"]
    assert (await invite(api, world.chief, spare)).status_code == 201
    token = token_sent(world)
    calls: dict[str, Any] = {
        "accept": lambda: answer(api, "accept", token),
        "delete": lambda: api.delete(f"/api/v1/roles/{spare}", headers=world.chief.headers),
    }
    tasks: dict[str, asyncio.Task[Any]] = {}
    async with await psycopg.AsyncConnection.connect(world.database_url) as holding:
        await holding.execute(held.encode())
        for way in (first, then):
            tasks[way] = asyncio.create_task(calls[way]())
            async with asyncio.timeout(60):
                while num_waiting(world) < len(tasks):
                    assert not tasks[way].done(), tasks[way].result().text
                    await asyncio.sleep(0.02)
    answers = {way: await task for way, task in tasks.items()}
    if first == "accept":
        assert answers["accept"].status_code == 201, answers["accept"].text
        problem_of(answers["delete"], 409, "resource.in-use")
    else:
        assert answers["delete"].status_code == 204, answers["delete"].text
        problem_of(answers["accept"], 409, "invitations.void")


async def test_an_establishment_that_is_deleted_while_somebody_accepts_is_a_clear_refusal(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    place = {"organization_id": str(world.tenant.id), "name": "Acme 3", "timezone": "UTC"}
    site = (await api.post("/api/v1/establishments", headers=world.chief.headers, json=place)).json()["id"]
    await invite(api, world.chief, roles["user"], establishment_ids=[site])
    token = token_sent(world)
    # It is deleted, and not yet for good, when the invitation is opened.
    async with await psycopg.AsyncConnection.connect(world.database_url) as deleting:
        await deleting.execute("delete from establishments where id = %s", [site])
        accepting = asyncio.create_task(answer(api, "accept", token))
        async with asyncio.timeout(60):
            while num_waiting(world) == 0:
                assert not accepting.done(), accepting.result().text
                await asyncio.sleep(0.02)
    problem_of(await accepting, 409, "invitations.void")
    assert (await answer(api, "accept", token)).status_code == 201


async def test_an_invitation_repeated_under_one_key_is_one_letter(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    headers = {**world.chief.headers, "Idempotency-Key": "once"}
    body = {"email": EMAIL, "first_name": "Nora", "last_name": "Paz", "role_id": str(roles["user"])}
    answers = [await api.post("/api/v1/invitations", headers=headers, json=body) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(letters_to(world.database_url, EMAIL)) == 1


async def test_the_audit_log_tells_who_came_and_holds_no_token(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    await invite(api, world.chief, roles["user"])
    token = token_sent(world)
    await answer(api, "accept", token)
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute(
            "select action, actor_kind, audit_entries::text from audit_entries order by id"
        ).fetchall()
    assert [row[:2] for row in rows] == [
        ("invitation.create", "user"),
        ("user.create", "anonymous"),
        ("invitation.accepted", "anonymous"),
    ]
    assert all(token not in row[2] and "hash" not in row[2] for row in rows)
