"""A table of what was shown, at the end; and Kafka and the CQL store, for all who need them."""

import time

import backends
import cluster
import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: takes something from all, such as the node or a broker; nothing else runs meanwhile")


@pytest.fixture(scope="session")
def stores():
    """Kafka and the CQL store."""
    with backends.used():
        yield


@pytest.fixture(autouse=True)
def turn(request):
    with cluster.turn(alone=request.node.get_closest_marker("alone") is not None):
        yield


@pytest.fixture
def shown(request):
    """Call it with what was seen, for the table."""
    began = time.monotonic()

    def record(what, figures):
        cluster.TABLE.append((what, figures, time.monotonic() - began))

    return record


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("")
    for what, figures, seconds in cluster.TABLE:
        terminalreporter.write_line(f"{what:<52} {seconds:5.0f} s  {figures}")
