"""Which errors of connecting are temporary, and for how long."""

from __future__ import annotations

import pytest

from simpleipc_cli.batch.connector import Connector
from simpleipc_cli.errors import (
    EndpointError,
    NotListening,
    OutOfResources,
    PathNotFound,
    PermissionDenied,
    ServerBusy,
)

TEMPORARY = {
    # waits, has_connected: the errors after which the exchange stays in the queue
    (False, False): {ServerBusy},
    (False, True): {ServerBusy, OutOfResources},
    (True, False): {ServerBusy, NotListening, PathNotFound},
    (True, True): {ServerBusy, NotListening, PathNotFound, OutOfResources},
}
ERRORS = [EndpointError, NotListening, OutOfResources, PathNotFound, PermissionDenied, ServerBusy]


class Exchange:
    stream = last_error = connect_deadline = None


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("waits", "has_connected"), TEMPORARY)
def test_an_exchange_tries_to_connect_again_only_after_temporary_errors(kind, waits, has_connected):
    def connect():
        raise kind("it failed")

    connector = Connector(connect, timeout=None, waits=waits)
    exchange = Exchange()
    connector.enqueue(exchange)
    left = list(connector.connect_ready(has_connected))
    assert left == ([] if kind in TEMPORARY[waits, has_connected] else [exchange])
    assert type(exchange.last_error) is kind
