"""A router and a worker that die under load."""

import cluster
import pytest
from cluster import TAGS, eventually, figures, nothing_lost, settled


@pytest.fixture(scope="module")
def release(stores, tmp_path_factory):
    """With little in flight, so that the bound on repeats says something, and beside others on the same services."""
    release = cluster.Release("bazaar", "distributed.yaml", tmp_path_factory.mktemp("bazaar"))
    release.install(TAGS[0], *cluster.BOUNDED, "--set", "cql.keyspace=bazaar", "--set", "settings.kafka.topic_prefix=bazaar")
    yield release
    release.gone()


@pytest.mark.parametrize("part", ["router", "worker"])
def test_a_container_is_killed(release, shown, part):
    settled(release)
    with release.load() as load:
        load.passes(100)
        before = cluster.restarts(release.pods(part))
        release.sigkill(release.pods(part)[0]["metadata"]["name"])
        eventually("a restart", 60, lambda: cluster.restarts(release.pods(part)) > before)
        settled(release)
        load.passes(100, seconds=120)
        result = load.stop()
    nothing_lost(result, repeated=cluster.REPEATS_MAX[part])
    shown(f"distributed: {part} SIGKILLed under load", figures(result))
