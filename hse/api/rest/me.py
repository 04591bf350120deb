"""What somebody who is signed in does to what he proves himself with."""

from dataclasses import dataclass, field

from litestar import Router, get, patch, post
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, PersonName, given
from hse.api.entrance import Entrances
from hse.api.rest.auth import NewPassword, Password, RecoveryCode, TotpCode
from hse.domain.identity import own, profile, second_factor
from hse.domain.identity.authentication import Codes
from hse.domain.identity.passwords import hash_new_password
from hse.domain.identity.profile import Me


class PasswordChange(Body):
    """The password as it is, and as it shall be."""

    password: Password
    new_password: NewPassword


class PasswordProof(Body):
    """The password, once more."""

    password: Password


class FullProof(Body):
    """The password, once more, and a one-time code or a recovery code."""

    password: Password
    totp_code: TotpCode | None = None
    recovery_code: RecoveryCode | None = None


class FirstCode(Body):
    """The first code of the authenticator."""

    totp_code: TotpCode


@dataclass(frozen=True, slots=True, kw_only=True)
class TotpEnrolment:
    """A secret for an authenticator app, told this once: as text, as the link that apps read, and as a QR code of that."""

    secret: str = field(repr=False)
    otpauth_uri: str = field(repr=False)
    qr_svg: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCodes:
    """Codes for who has lost his authenticator, told this once; each is good for one login."""

    recovery_codes: list[str] = field(repr=False)


class ProfileChange(Body):
    """What changes of yourself."""

    first_name: PersonName | UnsetType = UNSET
    last_name: PersonName | UnsetType = UNSET


@get("/me")
async def get_me(acting: Acts) -> Me:
    """Read who you are and what you may do."""
    return await acting.read(profile.me)


@patch("/me")
async def change_me(acting: Acts, data: JSONBody[ProfileChange], version: Version) -> Me:
    """Change your names."""
    command = profile.ChangeProfile(**given(data))
    return await acting.run(lambda work: profile.change_profile(work, command, version=version))


@post("/me/password", status_code=204)
async def change_password(acting: Acts, entrance: Entrances, data: JSONBody[PasswordChange]) -> None:
    """Change your password. It ends your other sessions.

    Your API keys stay; the letter that tells of the new password says how many there are.
    """
    account = await acting.read(own.own_account)
    async with own.proving(entrance, account, data.password) as proof:
        password_hash = await hash_new_password(entrance.passwords, data.new_password, account.personal)
        await acting.run(lambda work: own.change_password(work, proof, password_hash))


@post("/me/totp", status_code=201)
async def begin_totp(acting: Acts, entrance: Entrances, data: JSONBody[PasswordProof]) -> TotpEnrolment:
    """Get a secret for an authenticator app. It counts once you have sent its first code."""
    account = await acting.read(own.own_account)
    async with own.proving(entrance, account, data.password) as proof:
        made = entrance.second_factor.new_factor(account.email)
        await acting.run(lambda work: second_factor.begin_totp(work, proof, made.sealed))
    return TotpEnrolment(secret=made.secret, otpauth_uri=made.uri, qr_svg=made.svg)


@post("/me/totp/confirm", status_code=200)
async def confirm_totp(acting: Acts, entrance: Entrances, data: JSONBody[FirstCode]) -> RecoveryCodes:
    """Send the first code: from now on, signing in needs one. Keep the recovery codes in a safe place."""
    reads, codes = entrance.second_factor, entrance.second_factor.new_recovery_codes()
    await acting.run(lambda work: second_factor.confirm_totp(work, reads, data.totp_code, codes))
    return RecoveryCodes(recovery_codes=codes)


@post("/me/totp/disable", status_code=204)
async def disable_totp(acting: Acts, entrance: Entrances, data: JSONBody[FullProof]) -> None:
    """Sign in without one-time codes from now on."""
    account = await acting.read(own.own_account)
    given = Codes(totp=data.totp_code, recovery=data.recovery_code)
    async with own.proving(entrance, account, data.password) as proof:
        await acting.run(lambda work: second_factor.disable_totp(work, entrance.second_factor, proof, given))


@post("/me/recovery-codes", status_code=200)
async def renew_recovery_codes(acting: Acts, entrance: Entrances, data: JSONBody[FullProof]) -> RecoveryCodes:
    """Get new recovery codes; the old ones are worth nothing from now on."""
    account = await acting.read(own.own_account)
    given = Codes(totp=data.totp_code, recovery=data.recovery_code)
    reads, codes = entrance.second_factor, entrance.second_factor.new_recovery_codes()
    async with own.proving(entrance, account, data.password) as proof:
        await acting.run(lambda work: second_factor.renew_recovery_codes(work, reads, proof, given, codes))
    return RecoveryCodes(recovery_codes=codes)


router = Router(
    path="/",
    tags=["own account"],
    route_handlers=[get_me, change_me, change_password, begin_totp, confirm_totp, disable_totp, renew_recovery_codes],
)
