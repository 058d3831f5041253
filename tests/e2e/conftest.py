"""The stack as separate processes, once for all end-to-end tests; everything goes through its public doors."""

from collections.abc import Iterator

import pytest

from tests.support.issuer import Issuer
from tests.support.local_stack import running_stack
from tests.support.outside import Outside


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="session")
def outside(issuer: Issuer) -> Iterator[Outside]:
    """A running Tributary with small batches, so that even small files have several, and two worker processes."""
    settings = {"BATCH_BYTES": "65536", "REQUESTS_PER_MINUTE": "100000", "FUNCTIONS_WORKER_PROCESS_COUNT": "2"}
    with running_stack(**settings, **issuer.environment()) as stack, Outside(stack) as outside:
        yield outside
