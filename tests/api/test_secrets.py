"""Every secret that is told to somebody is told once: neither the audit log, nor the log, nor any table holds one of them.

One scenario has each kind of secret issued, used, used wrongly and sent to where it does not belong; then all that was written
down is searched.
"""

import base64
import io
import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.api.booked import make_lock, new_booking, new_door_code, new_guest
from tests.api.conftest import Client
from tests.api.mailboxes import letters_to, link_in
from tests.api.test_second_factor import Authenticator
from tests.api.world import PASSWORD, World

INVITED = "new@example.org"
INVITED_PASSWORD = "five lamas fold napkins"
NEW_PASSWORD = "nine badgers paint fences"
LAST_PASSWORD = "four walruses knit scarves"
WRONG_PASSWORD = "a wrong password of mine"


@dataclass
class Told:
    """The secrets that were told, by what they are."""

    secrets: dict[str, str] = field(default_factory=dict)

    def keep(self, kind: str, secret: object) -> str:
        """One more."""
        assert isinstance(secret, str)
        assert len(secret) >= 6, kind
        self.secrets[f"{kind} {len(self.secrets)}"] = secret
        return secret

    def found_in(self, text: str) -> list[str]:
        """Those that stand in a text: as they are, as bytes in hexadecimal or base64, or as part of an address."""
        return [kind for kind, secret in self.secrets.items() if any(way in text for way in spellings(secret))]


def spellings(secret: str) -> set[str]:
    encoded = secret.encode()
    return {secret, quote(secret, safe=""), encoded.hex(), base64.b64encode(encoded).decode().rstrip("=")[:-1]}


async def done(api: Client, method: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    """What a request that must succeed is answered."""
    answer = await api.request(method, f"/api/v1/{path}", headers=headers, json=body or None)
    assert answer.status_code < 300, (path, answer.text)
    return answer.json() if answer.content else None


async def log_in(api: Client, told: Told, email: str, password: str, **more: Any) -> dict[str, str]:
    """Sign in as a program, and go on once; what its requests carry."""
    opened = await done(api, "POST", "auth/login", email=email, password=password, **more)
    refresh_token = told.keep("refresh token", opened["refresh_token"])
    told.keep("access token", opened["access_token"])
    renewed = await done(api, "POST", "auth/refresh", refresh_token=refresh_token)
    told.keep("refresh token", renewed["refresh_token"])
    return {"Authorization": f"Bearer {told.keep('access token', renewed['access_token'])}"}


async def use_a_browser(api: Client, told: Told, email: str) -> None:
    answer = await api.post(
        "/api/v1/auth/login", json={"email": email, "password": PASSWORD, "in_cookies": True}, headers={}
    )
    jar = SimpleCookie("; ".join(line.partition(";")[0] for line in answer.headers.get_list("set-cookie")))
    for name, cookie in jar.items():
        told.keep(name, cookie.value)
    api.cookies.clear()
    cookies = {"Cookie": "; ".join(f"{name}={cookie.value}" for name, cookie in jar.items())}
    forged = await api.patch("/api/v1/me", headers=cookies, json={"first_name": "Eva"})
    assert forged.status_code == 403
    await done(api, "PATCH", "me", {**cookies, "X-CSRF-Token": jar["hse_csrf"].value}, first_name="Eva")


async def set_up_a_second_factor(api: Client, told: Told, headers: dict[str, str], email: str) -> None:
    begun = await done(api, "POST", "me/totp", headers, password=PASSWORD)
    told.keep("TOTP secret", begun["secret"])
    app = Authenticator(begun)
    confirmed = await done(api, "POST", "me/totp/confirm", headers, totp_code=app.code())
    codes = [told.keep("recovery code", code) for code in confirmed["recovery_codes"]]
    await log_in(api, told, email, PASSWORD, recovery_code=codes[0])
    proof = {"password": PASSWORD, "recovery_code": codes[1]}
    renewed = await done(api, "POST", "me/recovery-codes", headers, **proof)
    fresh = [told.keep("recovery code", code) for code in renewed["recovery_codes"]]
    await done(api, "POST", "me/totp/disable", headers, password=PASSWORD, recovery_code=fresh[0])


async def change_and_forget_the_password(api: Client, told: Told, world: World, headers: dict[str, str]) -> None:
    email = world.chief.email
    await done(api, "POST", "me/password", headers, password=PASSWORD, new_password=NEW_PASSWORD)
    await done(api, "POST", "auth/password-reset", email=email)
    link = told.keep("link for a new password", link_in(letters_to(world.database_url, email)[-1]))
    token = told.keep("token for a new password", link.rpartition("token=")[2])
    await done(api, "POST", "auth/password-reset/confirm", token=token, new_password=LAST_PASSWORD)
    await log_in(api, told, email, LAST_PASSWORD)


async def invite_somebody(api: Client, told: Told, world: World) -> None:
    user = {"first_name": "Nora", "last_name": "Paz", "role_id": str(world.user_role), "email": INVITED}
    made = await done(api, "POST", "invitations", world.partner.headers, **user, **_own(world))
    keep_invitation(told, world)
    await done(api, "POST", f"invitations/{made['id']}/resend", world.partner.headers)
    await done(api, "POST", "invitations/reject", token=keep_invitation(told, world))
    await done(api, "POST", "invitations", world.partner.headers, **user, **_own(world))
    token = keep_invitation(told, world)
    await done(api, "POST", "invitations/preview", token=token)
    await done(api, "POST", "invitations/accept", token=token, password=INVITED_PASSWORD)
    await log_in(api, told, INVITED, INVITED_PASSWORD)


def keep_invitation(told: Told, world: World) -> str:
    """Keep the link of the last letter; its token."""
    link = told.keep("invitation link", link_in(letters_to(world.database_url, INVITED)[-1]))
    return told.keep("invitation token", link.rpartition("token=")[2])


def _own(world: World) -> dict[str, str]:
    return {"organization_id": str(world.tenant.id)}


async def make_keys_and_device_tokens(api: Client, told: Told, world: World) -> None:
    chief = {**world.admin.headers, "Idempotency-Key": "once"}
    key = {"name": "dashboard", "actions": ["read_area"]}
    issued = await done(api, "POST", "api-keys", chief, **key)
    assert await done(api, "POST", "api-keys", chief, **key) == issued
    told.keep("API key", issued["key"])
    told.keep("secret of an API key", issued["key"].rpartition("_")[2])
    await done(api, "GET", "areas", {"X-API-Key": issued["key"]})
    device = f"devices/{world.tenant.sites[0].device_id}/token"
    for headers in (world.admin.headers, {**world.admin.headers, "Idempotency-Key": "again"}):
        told.keep("device token", (await done(api, "POST", device, headers))["token"])
    mutation = "mutation($id: UUID!) { issueDeviceToken(id: $id) { token } }"
    wanted = {"query": mutation, "variables": {"id": str(world.tenant.sites[0].device_id)}}
    answer = (await api.post("/graphql", headers=world.admin.headers, json=wanted)).json()
    told.keep("device token", answer["data"]["issueDeviceToken"]["token"])
    rows = f"kind,establishment,name,issue_token\ndevice,{world.tenant.sites[0].name},Gate,true\n"
    csv = {**world.admin.headers, "Content-Type": "text/csv"}
    imported = await api.post("/api/v1/imports/sites", headers=csv, content=rows.encode())
    assert imported.status_code == 200, imported.text
    told.keep("device token", imported.json()["rows"][0]["token"])


async def have_door_codes_shown(api: Client, world: World) -> list[str]:
    """Those of a booking, in the list and by itself, and a backup code that is given out twice; their digits."""
    site, headers = world.tenant.sites[0], world.admin.headers
    make_lock(world, site)
    booking = new_booking(world, world.tenant, site, new_guest(world, world.tenant, site))
    own = new_door_code(world, world.tenant, site, booking)
    new_door_code(world, world.tenant, site, None, digits="739164", state="active")
    (listed,) = (await done(api, "GET", f"bookings/{booking}/door-codes", headers))["items"]
    assert await done(api, "GET", f"door-codes/{own}", headers) == listed
    await done(api, "POST", f"door-codes/{own}/retry", headers)
    pull = {"device_id": str(site.device_id)}
    pulled = [
        await done(
            api, "POST", f"bookings/{booking}/door-codes/pull-backup", {**headers, "Idempotency-Key": "pull"}, **pull
        )
        for _ in range(2)
    ]
    assert pulled[0] == pulled[1]
    return [str(listed["code"]), str(pulled[0]["code"])]


async def send_secrets_where_they_do_not_belong(api: Client, told: Told, world: World) -> None:
    """Into addresses, headers, and bodies that are refused; whatever is answered."""
    for secret in list(told.secrets.values()):
        await api.get(f"/{quote(secret, safe='')}")
        await api.get("/api/v1/areas", params={"cursor": secret, "q": secret}, headers=world.root.headers)
        await api.get("/api/v1/areas", headers={"Authorization": f"Bearer {secret}x", "X-API-Key": f"hse_x_{secret}"})
        await api.post("/api/v1/auth/login", json={"email": secret, "password": secret, secret: secret})
        await api.post("/api/v1/auth/refresh", json={"refresh_token": secret})
        await api.post("/graphql", headers=world.root.headers, json={"query": f'{{ area(id: "{secret}") {{ name }} }}'})
        broken = {"Content-Type": "application/json", "Cookie": f"hse_access={quote(secret)}"}
        await api.post("/api/v1/auth/login", headers=broken, content=f'{{"password": "{secret}'.encode())


def stands_in(text: str, digits: str) -> bool:
    """Whether six digits stand in a text by themselves, and not by chance within a longer number, a fraction or an id."""
    return re.search(rf"(?<![\w.-]){digits}(?![\w-])", text) is not None


def everything_kept(database_url: str) -> dict[str, str]:
    """Every row of every table, as text, by table."""
    with psycopg.connect(database_url) as connection:
        names = [
            name
            for (name,) in connection.execute(
                "select tablename from pg_tables where schemaname = 'public' order by tablename"
            )
        ]
        kept = {}
        for name in names:
            rows = connection.execute(sql.SQL("select t::text from {} as t").format(sql.Identifier(name))).fetchall()
            kept[name] = "\n".join(row for (row,) in rows)
        return kept


async def test_no_secret_that_was_told_is_written_down_anywhere(logged: io.StringIO, api: Client, world: World) -> None:
    told, email = Told(), world.chief.email
    for password in (PASSWORD, INVITED_PASSWORD, NEW_PASSWORD, LAST_PASSWORD, WRONG_PASSWORD):
        told.keep("password", password)
    world.give_password(world.chief)
    headers = await log_in(api, told, email, PASSWORD)
    wrong = {"email": email, "password": WRONG_PASSWORD}
    assert (await api.post("/api/v1/auth/login", json=wrong)).status_code == 401
    await use_a_browser(api, told, email)
    await set_up_a_second_factor(api, told, headers, email)
    await change_and_forget_the_password(api, told, world, headers)
    await invite_somebody(api, told, world)
    await make_keys_and_device_tokens(api, told, world)
    digits = await have_door_codes_shown(api, world)
    assert digits == ["482913", "739164"]
    await send_secrets_where_they_do_not_belong(api, told, world)
    kept = everything_kept(world.database_url)
    # One more where the scenario takes so long that the first use of the key is written down meanwhile.
    assert len(kept["audit_entries"].splitlines()) >= 25
    assert {table: found for table, text in kept.items() if (found := told.found_in(text))} == {}
    assert len(logged.getvalue().splitlines()) > 300
    assert told.found_in(logged.getvalue()) == []
    assert [one for one in digits if stands_in(f"{kept} {logged.getvalue()}", one)] == []
    assert stands_in('{"code": "482913"}', "482913")
    # The search finds what is there.
    assert told.found_in(f"..{told.secrets['password 0']}..".encode().hex()) == ["password 0"]
