"""The first steps of somebody new."""

from litestar import Router, get, post

from hse.api.acting import Acts
from hse.domain.identity import onboarding
from hse.domain.identity.onboarding import Onboarding


@get("/onboarding")
async def get_onboarding(acting: Acts) -> Onboarding:
    """Read which steps are left to you, and where each is done."""
    return await acting.read(onboarding.onboarding)


@post("/onboarding/complete", status_code=200)
async def complete_onboarding(once: Acts) -> Onboarding:
    """Put the steps away, once none that must be done is left."""
    return await once.run(onboarding.complete_onboarding)


router = Router(path="/", tags=["onboarding"], route_handlers=[get_onboarding, complete_onboarding])
