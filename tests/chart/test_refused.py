"""Values that cannot work are refused before anything is installed, in words that say what to do.
Each file of refused/ is one case; its first line is what must be said."""

import chart
import pytest

CASES = sorted((chart.HERE / "refused").glob("*.yaml"))
assert len(CASES) > 30


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_cannot_work_is_refused_in_a_sentence(path):
    first = path.read_text().splitlines()[0]
    expected = first.removeprefix("# refused: ")
    assert expected != first and len(expected) > 20, first
    done = chart.helm("template", "fanfare", chart.CHART, "-f", path)
    assert done.returncode != 0, "it was accepted"
    assert expected in done.stderr, done.stderr
    # One thing is wrong, so one thing is said.
    said = [line for line in done.stderr.splitlines() if "at '" in line and "failed" not in line]
    assert len(said) <= 1, done.stderr


def test_a_grace_period_of_just_enough_is_accepted():
    chart.template(
        "embedded-minimal",
        "--set",
        "drainDeadlineSeconds=90,preStopSeconds=5,terminationGracePeriodSeconds=100",
    )
