"""The served interface answers, to what fits its document and to what does not, as that document says: by real requests.

Every check of schemathesis is on. What it sends is derived from the document and from nothing else, so that a run is like the
one before; and nothing that a request does is kept, so that none can spoil the next.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
import structlog
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks

from hse.api.app import Parts, create_app
from hse.embedded.postgres import EmbeddedPostgres
from hse.wiring.api import compose_doorkeeping
from tests.api.conftest import OUTBOX
from tests.api.permissions.actors import Place, places
from tests.api.permissions.trying import NeverFull, NothingIsKept
from tests.api.snapshots import openapi_document
from tests.api.world import SECRET_KEY, TOKENS, Person, World
from tests.conftest import START_SECONDS_MAX, a_database, wait_until

# They are made by the same seed in every run.
EXAMPLES = settings(
    max_examples=4, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def document(*, is_covered: bool) -> schemathesis.BaseSchema:
    """What is asked; when it is covered, also every limit of every field, one by one, from both sides."""
    loaded = schemathesis.openapi.from_dict(json.loads(openapi_document()))
    phases = loaded.config.phases
    for phase in (phases.examples, phases.coverage, phases.fuzzing):
        # What was answered before would make a request another one in every run.
        phase.extra_data_sources.responses = False
    phases.fuzzing.error_feedback.is_enabled = False
    phases.coverage.enabled = is_covered
    # Who asks is said by `send`; a credential at random would prove nobody, and what it asks for would not be looked at.
    loaded.config.generation.with_security_parameters = False
    loaded.config.request_timeout = START_SECONDS_MAX
    # A live stream has no end; its first message is told at once.
    loaded.config.max_stream_events = 1
    return loaded


# What is read in one place for all operations is tried at every limit at one of them; that one here.
COMMON = {
    **dict.fromkeys(("limit", "cursor", "sort", "q", "with_total"), "GET /api/v1/areas"),
    "If-Match": "PATCH /api/v1/areas/{area_id}",
    "Idempotency-Key": "POST /api/v1/areas",
}
covered, sampled = document(is_covered=True), document(is_covered=False)

load_all_checks()
# `has_the_form` says the same, and more exactly: a value can have the form that the document asks for and still be refused, such
# as a time zone that there is none of.
REPLACED = [CHECKS.get_one("positive_data_acceptance")]


@schemathesis.check
def has_the_form(_: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """What the document calls well formed is not refused for its form."""
    meta = case.meta
    if meta is not None and meta.generation.mode.is_positive and response.status_code in (400, 413, 415, 422):
        assert "errors" not in response.json(), f"{case.operation.label}: {response.text}"
        assert response.status_code == 422, f"{case.operation.label}: {response.text}"


@schemathesis.serializer("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")
def as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A file."""
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass
class Served:
    """The api on a port of its own, and the things that requests are about."""

    url: str
    session: requests.Session
    place: Place

    @property
    def world(self) -> World:
        """Who can ask."""
        return self.place.world


@pytest.fixture(scope="module")
def served(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Served]:
    """Serve it."""
    with a_database(postgres_server, migrated_template) as database_url, requests.Session() as session:
        postgres_server.ensure_api_login()
        api_url = postgres_server.api_url(database_url.rsplit("/", 1)[1])
        parts = Parts(
            open_database=lambda: NothingIsKept(api_url, pool_size=5, outbox=OUTBOX),
            sealer=OUTBOX.sealer,
            tokens=TOKENS,
            doorkeeping=compose_doorkeeping(SECRET_KEY),
            limiter=NeverFull(),
        )
        world = World(database_url)
        config = uvicorn.Config(create_app(parts), host="127.0.0.1", port=0, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        # It serves beside the test, whose output would be full of its lines.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        thread = threading.Thread(target=asyncio.run, args=[server.serve()])
        thread.start()
        try:
            wait_until(lambda: server.started, "the api serves")
            port = server.servers[0].sockets[0].getsockname()[1]
            yield Served(f"http://127.0.0.1:{port}", session, places(world)[0])
        finally:
            server.should_exit = True
            thread.join(START_SECONDS_MAX)
            structlog.reset_defaults()


def aim(case: Any, place: Place) -> None:
    """Let what fits the document be about things that are there: an id at random finds nothing."""
    there = {
        "partner_company_id": place.partner_company_id,
        "organization_id": place.tenant.id,
        "establishment_id": place.site.id,
        "area_id": place.site.area_id,
        "device_id": place.child_id,
        "user_id": place.worker.id,
        "role_id": place.organization_role_id,
        "invitation_id": place.invitation_id,
        "api_key_id": place.api_key_id,
        "session_id": place.worker.session_id,
        "profile_id": place.profile_id,
        "key_id": place.provisioning_key_id,
    }
    for given in (case.path_parameters, case.query, case.body):
        if isinstance(given, dict):
            given.update({name: str(there[name]) for name in given if name in there and given[name] is not None})


def is_covered_elsewhere(case: Any) -> bool:
    """Whether this is about a parameter that all lists, changes or POSTs take, and stands at another operation, too."""
    parameter = getattr(case.meta.phase.data, "parameter", None)
    return parameter in COMMON and case.operation.label != COMMON[parameter]


def send(case: Any, served: Served, person: Person) -> None:
    """Ask, and hold the answer against the document."""
    if is_covered_elsewhere(case):
        return
    if case.meta.generation.mode.is_positive:
        aim(case, served.place)
    case.call_and_validate(
        base_url=served.url, session=served.session, headers=person.headers, excluded_checks=REPLACED
    )


@covered.parametrize()
@EXAMPLES
def test_to_root_every_operation_answers_as_its_document_says(case: Any, served: Served) -> None:
    send(case, served, served.world.root)


@sampled.parametrize()
@EXAMPLES
def test_to_a_plain_user_every_operation_answers_as_its_document_says(case: Any, served: Served) -> None:
    send(case, served, served.world.user)
