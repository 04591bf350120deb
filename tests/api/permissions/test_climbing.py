"""Nobody ends up with more than a chain of permitted grants gives him, and nobody sees beyond his reach, whatever they all do."""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from hse.api.app import Parts
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.permissions.climbing import Climbing

NUM_EXAMPLES = int(os.environ.get("HSE_CLIMBING_EXAMPLES", "12"))
NUM_STEPS = 60


@pytest.fixture
def machine(postgres_server: EmbeddedPostgres, migrated_template: str, parts: Parts) -> type[Climbing]:
    """The state machine, on the session's server."""
    Climbing.server, Climbing.template, Climbing.parts = postgres_server, migrated_template, parts
    return Climbing


@pytest.mark.timeout(600)
def test_nobody_climbs_and_nobody_sees_beyond_his_reach(machine: type[Climbing]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=NUM_STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize="HSE_CLIMBING_EXAMPLES" not in os.environ,
            print_blob=True,
        ),
    )
