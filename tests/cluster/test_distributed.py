"""Two routers and two workers over Kafka and a CQL store."""

import json
import re
import threading
import time

import backends
import cluster
import pytest
import yaml
from cluster import TAGS, both_ready, eventually, figures, get, kubectl, nothing_lost, settled


@pytest.fixture(scope="module")
def release(stores, tmp_path_factory):
    release = cluster.Release("market", "distributed.yaml", tmp_path_factory.mktemp("market"))
    release.install()
    yield release
    release.gone()


def upgrade(release, load):
    load.passes(100)
    release.upgrade(TAGS[1])
    eventually("old pods gone", 120, lambda: both_ready(release, tag=TAGS[1]))
    load.passes(100)


def roll_back(release, load):
    release.helm("rollback", "fanfare", "--wait", "--timeout", "300s")
    eventually("new pods gone", 120, lambda: both_ready(release, tag=TAGS[0]))
    load.passes(100)


@pytest.fixture(scope="module")
def bounded(release):
    """The same, with little in flight, so that the bound on repeats says something."""
    release.upgrade(TAGS[0], *cluster.BOUNDED)
    return release


def test_publish_through_the_service(release, shown):
    settled(release)
    with release.load() as load:
        load.passes(200)
        result = load.stop()
    nothing_lost(result)
    shown("distributed: install --wait, two and two", figures(result))


def test_memory(release, shown):
    settled(release)
    with release.load("--slow", rate=3 * cluster.RATE) as load:
        memory = release.memory_meanwhile(60)
        result = load.stop()
    nothing_lost(result)
    shares = ", ".join(f"{part} {used:.0f} MiB, {share:.0f} % of the limit" for part, (used, share) in sorted(memory.items()))
    shown("distributed: memory under load", f"{shares}; {figures(result)}")
    assert set(memory) == {"router", "worker"} and max(share for _, share in memory.values()) < 60


# Shown only once it has happened (docs/metrics.md).
SELDOM = {"fanfare_front_shed_total"}


def test_dashboard_and_alerts_ask_for_what_pods_export(release, shown):
    """Of routers and workers that have delivered something; tests/chart compares with one process of everything."""
    settled(release)
    with release.load() as load:
        load.passes(100)
        load.stop()
    found = {}
    for part in ("router", "worker"):
        pages = [release.ask(pod["metadata"]["name"], "/metrics") for pod in release.pods(part)]
        assert all(status == 200 for status, _ in pages), pages
        found[part] = {name for _, page in pages for name in re.findall(r"^(fanfare_\w+)", page, re.M)}
    documents = release.helm("template", "fanfare", cluster.CHART, "--set", "prometheusRule.enabled=true", "--set", "grafanaDashboard.enabled=true",
                             "--api-versions", "monitoring.coreos.com/v1", *release._values(TAGS[0], ())).stdout
    documents = [d for d in yaml.safe_load_all(documents) if d]
    (rules,) = [g for d in documents if d["kind"] == "PrometheusRule" for g in d["spec"]["groups"]]
    (board,) = [json.loads(d["data"]["fanfare.json"]) for d in documents if "fanfare.json" in d.get("data", {})]
    asked = [rule["expr"] for rule in rules["rules"]]
    asked += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in asked for name in re.findall(r"\bfanfare_\w+", query)}
    assert len(asked) > 20 and asked - found["router"] - found["worker"] <= SELDOM, asked - found["router"] - found["worker"]
    shown("distributed: metrics of dashboard and alerts", f"{len(asked)} asked for, all exported")


def test_upgrade_and_roll_back(release, shown):
    """The next version has one more migration: until the last old pod has drained, and after the roll back,
    programs of the older schema work on the newer one. There are never fewer than wanted."""
    settled(release)
    before = backends.schema()
    with release.load() as load, release.available() as fewest:
        upgrade(release, load)
        after = backends.schema()
        roll_back(release, load)
        result = load.stop()
    nothing_lost(result)
    assert after == before + 1
    assert fewest == {"fanfare-router": 2, "fanfare-worker": 2}
    shown("distributed: upgrade over a migration, and rollback", f"schema {before} to {after}; {figures(result)}")


def test_upgrade_and_roll_back_with_a_slow_endpoint(release, shown):
    settled(release)
    with release.load("--slow") as load:
        time.sleep(10)
        upgrade(release, load)
        roll_back(release, load)
        result = load.stop()
    nothing_lost(result)
    shown("distributed: the same while an endpoint takes 20 s", figures(result))


def test_scale(release, shown):
    settled(release)
    with release.load() as load:
        for count in (1, 3, 1, 2):
            for part in ("router", "worker"):
                kubectl("-n", release.namespace, "scale", f"deployment/fanfare-{part}", f"--replicas={count}")
            settled(release, count, count)
            load.passes(100)
        result = load.stop()
    nothing_lost(result)
    shown("distributed: scaled 2, 1, 3, 1, 2", figures(result))


@pytest.mark.alone
def test_drain(release, shown):
    settled(release)
    with release.load() as load:
        load.passes(100)
        try:
            drained = cluster.drain("router,worker", "--timeout=30s", check=False)
            assert "violate the pod's disruption budget" in drained.stderr, drained.stderr
            # One of each was let go and finds no node; the others serve.
            for part in ("router", "worker"):
                eventually("one is left", 60, lambda: sum(map(cluster.ready, release.pods(part))) == 1)
            load.passes(100)
        finally:
            kubectl("uncordon", cluster.node())
        settled(release)
        load.passes(100)
        result = load.stop()
    nothing_lost(result)
    shown("distributed: node drain held back by the budget", figures(result))


# What routers and workers say of it, on /readyz and in their logs.
AWAY = {"kafka": "Kafka brokers do not answer", "scylla": "the store has not answered for"}


def stay_away(release, name, restarts):
    """Takes it away for a minute; what pods say of it, which are not ready and alive."""
    backends.down(name)
    eventually("pods not ready", 120, lambda: not any(map(cluster.ready, release.pods())))
    said = {part: release.not_ready(release.pods(part)[0]["metadata"]["name"], AWAY[name]) for part in ("router", "worker")}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for pod in release.pods():
            alive = release.ask(pod["metadata"]["name"], "/livez")
            assert alive[0] == 200, (pod["metadata"]["name"], alive)
        assert cluster.restarts(release.pods()) == restarts
        time.sleep(3)
    return said


@pytest.mark.alone
@pytest.mark.parametrize("name", backends.NAMES)
def test_a_backend_goes_away(bounded, shown, name):
    """Publishing fails meanwhile, so producers are more patient than the Rust client, as people are who repeat."""
    release = bounded
    settled(release)
    with release.load("--settle", "240", "--give-up-after", "600") as load:
        load.passes(100)
        before = cluster.restarts(release.pods())
        try:
            said = stay_away(release, name, before)
        finally:
            backends.up(name)
        began = time.monotonic()
        settled(release, seconds=180)
        took = time.monotonic() - began
        load.passes(100, seconds=120)
        result = load.stop()
    assert cluster.restarts(release.pods()) == before
    # All had something under way.
    nothing_lost(result, repeated=2 * (cluster.REPEATS_MAX["router"] + cluster.REPEATS_MAX["worker"]))
    shown(f"distributed: {name} away for a minute", f"{figures(result)}; ready {took:.0f} s after; they said: {said}")


@pytest.mark.alone
@pytest.mark.parametrize("name", backends.NAMES)
def test_a_backend_is_away_at_install(stores, tmp_path, shown, name):
    release = cluster.Release(f"early-{name}", "distributed.yaml", tmp_path)
    try:
        backends.down(name)
        more = ("--set", f"cql.keyspace=early_{name}", "--set", f"settings.kafka.topic_prefix=early-{name}")
        # With Kafka away the migration succeeds; with the store away it waits, and says for what.
        installing = threading.Thread(target=lambda: release.install(TAGS[0], *more), daemon=True)
        installing.start()
        selector = "app.kubernetes.io/name in (fanfare, fanfare-migration)"
        pods = lambda: get("pods", namespace=release.namespace, selector=selector)
        waits = lambda: [p for p in pods() if p["status"]["phase"] == "Running"]
        eventually("pods that wait", 60, lambda: len(waits()) >= (1 if name == "scylla" else 4))
        time.sleep(30)
        assert not any(p["metadata"]["labels"]["app.kubernetes.io/name"] == "fanfare" and cluster.ready(p) for p in pods())
        assert cluster.restarts(pods()) == 0
        if name == "kafka":
            said = [release.not_ready(pod["metadata"]["name"], "waiting: kafka: ") for pod in waits()]
        else:
            # The migration serves nobody: its log says it.
            said = re.findall(r"waiting: cql: .*", release.logs(waits()[0]["metadata"]["name"]))
            assert said, "it does not say for what it waits"
        backends.up(name)
        installing.join(240)
        assert not installing.is_alive() and both_ready(release)
        assert cluster.restarts(release.pods()) == 0
        shown(f"distributed: {name} away at install", f"no restart, ready by itself; it said: {said[0][-200:]}")
    finally:
        backends.up(name)
        release.gone()
