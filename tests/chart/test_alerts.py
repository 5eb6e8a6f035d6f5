"""Each alert fires when it should and only then: evaluated by Prometheus' own engine over stories.yaml."""

import functools
import json
import subprocess

import chart
import pytest
import yaml

STORIES = yaml.safe_load((chart.HERE / "stories.yaml").read_text())
assert len(STORIES) > 20
NAMES = [story["name"] for story in STORIES]
assert len(set(NAMES)) == len(NAMES)

SCRAPED = {"namespace": "shop", "job": "events-admin"}


def alerts():
    (group,) = chart.one(chart.rendered("distributed-full"), "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def notation(series):
    """A story's series as Prometheus' test notation has them, labels of the scrape added."""
    if not any(name.startswith("up{") for name in series):
        series = {**series, 'up{pod="worker-0"}': "1x600"}
    lines = []
    for name, values in series.items():
        bare, _, labels = name.rstrip("}").partition("{")
        scraped = [f'{key}="{value}"' for key, value in SCRAPED.items() if f"{key}=" not in labels]
        lines.append(f"{bare}{{{','.join([*scraped, labels])}}} {values}")
    return lines


@functools.cache
def told():
    """What fires at the end of each story."""
    asked = {
        "alerts": [
            {key: rule.get(key, "") for key in ("alert", "expr", "for")} for rule in alerts()
        ],
        "stories": [
            {"name": story["name"], "series": notation(story["series"]), "until": story["for"]}
            for story in STORIES
        ],
    }
    done = subprocess.run(
        [chart.TOOLS / "alerts"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("story", STORIES, ids=NAMES)
def test_what_fires(story):
    fired = told()[story["name"]]
    assert sorted(one["alert"] for one in fired) == story["fires"], fired


def test_every_alert_fires_in_some_story():
    firing = {alert for story in STORIES for alert in story["fires"]}
    assert firing == {rule["alert"] for rule in alerts()}


def test_sentences_name_only_labels_that_are_there():
    """An alert that names a label in its sentences fires with it."""
    named = 0
    rules = {rule["alert"]: rule["annotations"]["summary"] for rule in alerts()}
    for fired in told().values():
        for one in fired:
            summary = rules[one["alert"]]
            for label in ("pod", "reason", "what"):
                if f"$labels.{label} " in summary:
                    assert one["labels"].get(label), (one, summary)
                    named += 1
    assert named > 5
