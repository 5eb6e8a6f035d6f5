"""Values that cannot work are refused before anything is installed, in words that say what to do.
Each file of refused/ is one case; its first line is what must be said."""

import functools
import json

import chart
import pytest

CASES = sorted((chart.HERE / "refused").glob("*.yaml"))
assert len(CASES) > 30


@functools.cache
def tried(path):
    return chart.helm("template", "fanfare", chart.CHART, "-f", path)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_cannot_work_is_refused_in_a_sentence(path):
    first = path.read_text().splitlines()[0]
    expected = first.removeprefix("# refused: ")
    assert expected != first and len(expected) > 20, first
    done = tried(path)
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


def test_every_rule_across_values_has_its_case():
    """No rule of the schema, and no sentence of the templates, is untried."""
    said = "\n".join(tried(path).stderr for path in CASES)
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    rules = [sentence(rule["then"]) for rule in schema["allOf"]]
    checks = (chart.CHART / "templates/_checks.tpl").read_text()
    # What is said up to the first value that is filled in; Secrets need a cluster (test_secrets.py).
    fails = [
        line.split("fail ")[1].strip("(printf ").strip('"')
        for line in checks.splitlines()
        if "fail " in line
    ]
    starts = [
        text.split("%")[0].split('"')[0] for text in fails if "Secret" not in text.split(" in ")[0]
    ]
    assert len(rules) > 10 and len(fails) >= 6
    for text in [*rules, *(start for start in starts if len(start) > 15)]:
        assert text in said, text


def sentence(rule):
    """The text at the end of a rule's path."""
    while "const" not in rule:
        (rule,) = rule["properties"].values()
    return rule["const"]
