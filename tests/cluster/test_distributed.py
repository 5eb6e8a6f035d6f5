"""Two routers and two workers over Kafka and a CQL store."""

import threading
import time

import backends
import cluster
import pytest
from cluster import TAGS, eventually, figures, get, kubectl, nothing_lost


@pytest.fixture(scope="module")
def release(stores, tmp_path_factory):
    release = cluster.Release("market", "distributed.yaml", tmp_path_factory.mktemp("market"))
    release.install()
    yield release
    release.gone()


def both_ready(release, routers=2, workers=2, tag=None):
    return release.all_ready("router", routers, tag) and release.all_ready("worker", workers, tag)


def settled(release, routers=2, workers=2, seconds=120):
    eventually("all pods ready", seconds, lambda: both_ready(release, routers, workers))


def upgrade(release, load):
    load.passes(100)
    release.upgrade(TAGS[1])
    eventually("old pods gone", 120, lambda: both_ready(release, tag=TAGS[1]))
    load.passes(100)


def test_publish_through_the_service(release, shown):
    settled(release)
    with release.load(9001) as load:
        load.passes(200)
        result = load.stop()
    nothing_lost(result, repeated=0)
    shown("distributed: install --wait, two and two", figures(result))


def test_memory(release, shown):
    settled(release)
    with release.load(9001, "--slow", rate=3 * cluster.RATE) as load:
        memory = release.memory_meanwhile(60)
        result = load.stop()
    nothing_lost(result, repeated=0)
    shares = ", ".join(f"{part} {share:.0f} %" for part, share in sorted(memory.items()))
    shown("distributed: memory of the limit, under load", f"{shares}; {figures(result)}")
    assert set(memory) == {"router", "worker"} and max(memory.values()) < 60


def test_upgrade_and_roll_back(release, shown):
    """The next version has one more migration: until the last old pod has drained, and after the roll back,
    programs of the older schema work on the newer one."""
    settled(release)
    before = backends.schema()
    with release.load(9001) as load:
        upgrade(release, load)
        after = backends.schema()
        release.helm("rollback", "fanfare", "--wait", "--timeout", "300s")
        eventually("new pods gone", 120, lambda: both_ready(release, tag=TAGS[0]))
        load.passes(100)
        result = load.stop()
    nothing_lost(result, repeated=0)
    assert after == before + 1
    shown("distributed: upgrade over a migration, and rollback", f"schema {before} to {after}; {figures(result)}")


def test_upgrade_with_a_slow_endpoint(release, shown):
    settled(release)
    with release.load(9001, "--slow") as load:
        time.sleep(10)
        upgrade(release, load)
        result = load.stop()
    nothing_lost(result, repeated=0)
    shown("distributed: upgrade while an endpoint takes 20 s", figures(result))


def test_scale(release, shown):
    settled(release)
    with release.load(9001) as load:
        for count in (1, 3, 1, 2):
            for part in ("router", "worker"):
                kubectl("-n", release.namespace, "scale", f"deployment/fanfare-{part}", f"--replicas={count}")
            settled(release, count, count)
            load.passes(100)
        result = load.stop()
    nothing_lost(result, repeated=0)
    shown("distributed: scaled 2, 1, 3, 1, 2", figures(result))


def test_drain(release, shown):
    settled(release)
    with release.load(9001) as load:
        load.passes(100)
        try:
            drained = cluster.drain("--timeout=30s", check=False)
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
    nothing_lost(result, repeated=0)
    shown("distributed: node drain held back by the budget", figures(result))


@pytest.mark.parametrize("part", ["router", "worker"])
def test_a_container_is_killed(release, shown, part):
    settled(release)
    with release.load(9001) as load:
        load.passes(100)
        before = cluster.restarts(release.pods(part))
        release.sigkill(release.pods(part)[0]["metadata"]["name"])
        eventually("a restart", 60, lambda: cluster.restarts(release.pods(part)) > before)
        settled(release)
        load.passes(100, seconds=120)
        result = load.stop()
    nothing_lost(result)
    shown(f"distributed: {part} SIGKILLed under load", figures(result))


@pytest.mark.parametrize("name", backends.NAMES)
def test_a_backend_goes_away(release, shown, name):
    settled(release)
    with release.load(9001, "--settle", "240") as load:
        load.passes(100)
        before = cluster.restarts(release.pods())
        backends.down(name)
        eventually("pods not ready", 120, lambda: not any(map(cluster.ready, release.pods())))
        said = release.readiness(release.pods("worker")[0]["metadata"]["name"])
        time.sleep(60)
        assert cluster.restarts(release.pods()) == before
        backends.up(name)
        began = time.monotonic()
        settled(release, seconds=180)
        took = time.monotonic() - began
        load.passes(100, seconds=120)
        result = load.stop()
    assert cluster.restarts(release.pods()) == before
    nothing_lost(result)
    shown(f"distributed: {name} away for a minute", f"{figures(result)}; ready {took:.0f} s after; it said: {said[-160:]!r}")


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
        said = release.logs(waits()[0]["metadata"]["name"]).strip().splitlines()
        said = [line for line in said if "waiting: " in line]
        assert said, "it does not say for what it waits"
        backends.up(name)
        installing.join(240)
        assert not installing.is_alive() and both_ready(release)
        assert cluster.restarts(release.pods()) == 0
        shown(f"distributed: {name} away at install", f"no restart, ready by itself; it said: {said[0][-200:]}")
    finally:
        backends.up(name)
        release.gone()
