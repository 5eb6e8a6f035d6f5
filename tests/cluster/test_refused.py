"""What a person must correct: refused before anything is installed, or said in one sentence where they look."""

import json

import backends
import cluster
import pytest
from cluster import eventually, kubectl


@pytest.fixture(scope="module")
def guarded(stores):
    """A store that asks for a password. Kafka has a port that does."""
    backends.up("guarded")
    yield
    backends.down("guarded")


@pytest.fixture
def release(guarded, tmp_path):
    release = cluster.Release("careful", "distributed.yaml", tmp_path)
    yield release
    release.gone()


GUARDED = ("--set", "cql.contactPoints={guarded.backends.svc:9042}", "--set", "cql.keyspace=careful", "--set", "cql.user=cassandra",
           "--set", "cql.passwordSecret.name=cql", "--set", "cql.passwordSecret.key=password",
           "--set", "kafka.bootstrapServers={kafka.backends.svc:9094}", "--set", "settings.kafka.topic_prefix=careful",
           "--set", "kafka.sasl.mechanism=plain", "--set", "kafka.sasl.username=fanfare",
           "--set", "kafka.sasl.passwordSecret.name=kafka", "--set", "kafka.sasl.passwordSecret.key=password",
           "--set", "migration.retries=0")


def secret(release, name, password, key="password"):
    kubectl("apply", "-f", "-", text=json.dumps({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": release.namespace}, "stringData": {key: password}}))


def refused(release, *more):
    """What helm says of an install or an upgrade that it does not do."""
    done = release.install_or_upgrade(*more, check=False)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def nothing_there(release):
    return not release.pods() and not json.loads(release.helm("list", "--all", "-o", "json").stdout)


def test_a_mode_without_its_addresses(tmp_path, shown):
    release = cluster.Release("careless", "embedded.yaml", tmp_path)
    try:
        said = refused(release, "--set", "mode=distributed")
        assert "bootstrapServers" in said and "contactPoints" in said, said
        assert nothing_there(release)
    finally:
        release.gone()
    shown("refused: a mode without its addresses", " ".join(said.split())[-200:])


def test_a_wrong_reference_and_a_wrong_password(release, shown):
    # A Secret that is not there, and one without the key.
    secret(release, "kafka", "wrong")
    absent = refused(release, *GUARDED)
    assert "there is no Secret cql in namespace careful" in absent, absent
    secret(release, "cql", "wrong", key="passwort")
    lacking = refused(release, *GUARDED)
    assert "cql" in lacking and "password" in lacking, lacking
    assert nothing_there(release)
    shown("refused: a Secret that is not there", absent.strip().splitlines()[-1][-160:])

    # The password of the store: the migration says so, and helm repeats it.
    secret(release, "cql", "wrong")
    helm = refused(release, *GUARDED)
    said = release.logs("job/fanfare-migration").strip().splitlines()[-1]
    assert "password" in said and "cql" in said, said
    assert said in helm, helm
    assert not release.pods()
    shown("said: a wrong password of the store", said)

    # The password of Kafka: every pod says so, and ends.
    secret(release, "cql", "cassandra")
    release.install_or_upgrade(*GUARDED, wait=None)
    ended = lambda part: [pod for pod in release.pods(part) if cluster.restarts([pod]) > 0]
    for part in ("router", "worker"):
        pod = eventually(f"a {part} has ended", 60, lambda: ended(part))[0]["metadata"]["name"]

        def last_words():
            # The container before may have been removed meanwhile, when its successor has ended, too.
            line = release.logs(pod, "--previous").strip().splitlines()[-1]
            return line if "do not let this program in" in line and "password_file" in line else None

        said = eventually(f"{pod} says who does not let it in", 60, last_words)
    assert not any(map(cluster.ready, release.pods()))
    shown("said: a wrong password of Kafka", said[-200:])

    # Corrected, it is a rollout like any other.
    secret(release, "kafka", "right")
    release.install_or_upgrade(*GUARDED)
    eventually("old pods gone", 120, lambda: release.all_ready("router", 2) and release.all_ready("worker", 2))
    with release.load() as load:
        load.passes(100)
        result = load.stop()
    cluster.nothing_lost(result)
    shown("said, then corrected", cluster.figures(result))
