"""Kafka and the CQL store: there, and away."""

import contextlib
import fcntl
import json

import cluster
from cluster import eventually, get, kubectl

NAMES = ("kafka", "scylla")


@contextlib.contextmanager
def used():
    """Both are there until whoever uses them last is done."""
    with cluster.held("backends.used", fcntl.LOCK_SH) as file:
        with cluster.turn():
            _make()
        yield
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        kubectl("delete", "namespace", "backends", "--wait=true", "--timeout=120s", timeout=150)


def up(name):
    _scale(name, 1)
    kubectl("-n", "backends", "rollout", "status", f"deployment/{name}", "--timeout=120s", timeout=130)


def down(name):
    _scale(name, 0)
    eventually(f"{name} is gone", 60, lambda: not get("pods", namespace="backends", selector=f"app={name}"))


def _scale(name, count):
    kubectl("-n", "backends", "scale", f"deployment/{name}", f"--replicas={count}")


def _make():
    kubectl("apply", "-f", cluster.HERE / "backends.yaml")
    for name in NAMES:
        up(name)


def schema():
    """The version of the store's schema, as today's program says it: it changes nothing, being no newer."""
    kubectl("-n", "backends", "run", "asks", f"--image=fanfare:{cluster.TAGS[0]}", "--restart=Never",
            "--env=FANFARE__STORAGE__MODE=distributed", "--env=FANFARE__CQL__CONTACT_POINTS=scylla.backends.svc:9042",
            "--env=FANFARE__CQL__REPLICATION=1", "--command", "--", "fanfare", "migrate", "-o", "json")
    try:
        eventually("an answer", 60, lambda: get("pod", "asks", "backends")["status"]["phase"] == "Succeeded")
        return json.loads(kubectl("-n", "backends", "logs", "asks"))["version"]
    finally:
        kubectl("-n", "backends", "delete", "pod", "asks", "--now")
