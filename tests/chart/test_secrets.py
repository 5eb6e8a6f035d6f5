"""With a cluster to look into, helm sees that a Secret is missing or has changed."""

import functools

import cluster
import pytest
from test_pods import checksums

SECRETS = {
    "kafka-ca": {"ca.crt": "a"},
    "kafka-client": {"tls.crt": "b", "tls.key": "c"},
    "kafka-user": {"pass.word": "d"},
    "cql-user": {"password": "e"},
    "cql-ca": {"tls-ca.pem": "f"},
}


def install(secrets, *arguments):
    return cluster.install(secrets, "distributed-full", *arguments)


@functools.cache
def installed():
    return cluster.manifests(install(SECRETS))


def test_what_is_there_is_installed():
    docs = installed()
    assert len(checksums(docs)) == 2 and len(docs) > 15


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, keys in SECRETS.items() for key in keys]
)
def test_a_changed_secret_is_a_rollout(name, key):
    before = checksums(installed())
    changed = {**SECRETS, name: {**SECRETS[name], key: "other"}}
    after = checksums(cluster.manifests(install(changed)))
    for workload, sums in before.items():
        assert after[workload]["checksum/settings"] == sums["checksum/settings"]
        assert after[workload]["checksum/secrets"] != sums["checksum/secrets"]


def test_what_is_not_referred_to_changes_nothing():
    more = {**SECRETS, "other": {"x": "y"}, "kafka-user": {**SECRETS["kafka-user"], "other": "z"}}
    before = checksums(installed())
    assert before == checksums(cluster.manifests(install(more)))


def test_no_secret_is_in_what_is_installed():
    telling = {n: {k: f"tell-{n}-{k}-tale" for k in keys} for n, keys in SECRETS.items()}
    done = install(telling)
    assert done.returncode == 0 and "-tale" not in done.stdout


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_secret_is_said_in_a_sentence(name):
    done = install({n: keys for n, keys in SECRETS.items() if n != name})
    assert done.returncode != 0
    assert (
        f"there is no Secret {name} in namespace shop: make it, or refer to another" in done.stderr
    )


def test_a_missing_key_is_said_in_a_sentence():
    done = install({**SECRETS, "cql-user": {"pass": "e"}})
    assert done.returncode != 0
    assert "the Secret cql-user in namespace shop has no key password" in done.stderr


def test_without_lookup_nothing_is_asked():
    docs = cluster.manifests(install({}, "--set", "secrets.lookup=false"))
    assert len(checksums(docs)) == 2
