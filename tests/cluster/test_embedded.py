"""One pod and one volume: killed, evicted and upgraded under load, and what stays when it is uninstalled."""

import cluster
import pytest
from cluster import TAGS, eventually, figures, get, kubectl, nothing_lost


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    release = cluster.Release("shop", "embedded.yaml", tmp_path_factory.mktemp("shop"))
    release.install()
    yield release
    release.gone()


def test_publish_through_the_service(release, shown):
    with release.load() as load:
        load.passes(200)
        result = load.stop()
    nothing_lost(result)
    shown("embedded: install --wait, published via the Service", figures(result))


def test_memory(release, shown):
    with release.load(rate=3 * cluster.RATE) as load:
        memory = release.memory_meanwhile(30)
        result = load.stop()
    nothing_lost(result)
    used, share = memory["embedded"]
    shown("embedded: memory under load", f"{used:.0f} MiB, {share:.0f} % of the limit; {figures(result)}")
    assert share < 60


def test_the_container_is_killed(release, shown):
    release.upgrade(TAGS[0], *cluster.BOUNDED)
    with release.load() as load:
        load.passes(100)
        before = cluster.restarts(release.pods())
        release.sigkill("fanfare-0")
        eventually("a restart", 30, lambda: cluster.restarts(release.pods()) > before)
        eventually("ready again", 60, lambda: release.all_ready("embedded", 1))
        load.passes(100)
        result = load.stop()
    nothing_lost(result, repeated=cluster.REPEATS_MAX["embedded"])
    shown("embedded: container SIGKILLed under load", figures(result))


@pytest.mark.alone
def test_the_pod_is_evicted(release, shown):
    with release.load() as load:
        load.passes(100)
        uid = release.pods()[0]["metadata"]["uid"]
        try:
            cluster.drain("embedded", "--timeout=100s")
        finally:
            kubectl("uncordon", cluster.node())
        eventually("another pod", 60, lambda: (p := release.all_ready("embedded", 1)) and p[0]["metadata"]["uid"] != uid)
        load.passes(100)
        result = load.stop()
    nothing_lost(result)
    shown("embedded: pod evicted under load", figures(result))


def test_upgrade_and_roll_back(release, shown):
    with release.load() as load:
        load.passes(100)
        release.upgrade(TAGS[1])
        assert release.all_ready("embedded", 1, TAGS[1])
        load.passes(100)
        release.helm("rollback", "fanfare", "--wait", "--timeout", "300s")
        assert release.all_ready("embedded", 1, TAGS[0])
        load.passes(100)
        result = load.stop()
    nothing_lost(result)
    shown("embedded: upgrade to another tag, and rollback", figures(result))


def test_the_volume_stays(release, shown):
    count = lambda: len(cluster.run(
        *cluster.INSIDE, cluster.FANFARE, "endpoint", "list", "--server", release.service(), "--api-key-file",
        release.key_file, "-o", "json").stdout.splitlines())
    before = count()
    volume = get("pvc", "data-fanfare-0", release.namespace)["spec"]["volumeName"]
    release.helm("uninstall", "fanfare", "--wait", "--timeout", "120s")
    assert get("pvc", "data-fanfare-0", release.namespace)["spec"]["volumeName"] == volume
    release.install()
    assert count() == before > 0
    shown("embedded: volume kept by uninstall, found by install", f"{before} endpoints before and after")
