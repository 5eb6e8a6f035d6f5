"""A table of what was shown, at the end."""

import time

import cluster
import pytest


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
