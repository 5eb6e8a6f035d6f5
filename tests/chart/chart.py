"""The chart, rendered by the real helm."""

import functools
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/fanfare"
HERE = pathlib.Path(__file__).resolve().parent
TOOLS = pathlib.Path(os.environ["FANFARE_CHART_TOOLS"])
FANFARE = os.environ["FANFARE_BIN"]
NAMESPACE = "shop"

# Every set of values that must work, by name.
VALUES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
DISTRIBUTED = [name for name in VALUES if not name.startswith("embedded")]
assert len(VALUES) >= 6 and len(DISTRIBUTED) >= 4


def values_file(name):
    return HERE / "values" / f"{name}.yaml"


def helm(*arguments):
    """Runs helm; the result has returncode, stdout and stderr."""
    command = [str(TOOLS / "helm"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def template(name, *arguments):
    """The manifests of the set of values `name`, changed by further arguments of helm."""
    files = ("-f", values_file(name))
    done = helm("template", "fanfare", CHART, "-n", NAMESPACE, *files, *arguments)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


@functools.cache
def _rendered(name):
    return template(name)


def rendered(name):
    """The manifests of a set of values, unchanged."""
    docs = _rendered(name)
    assert len(docs) >= 6, f"{name}: {len(docs)} manifests"
    return docs


def of_kind(docs, kind):
    return [doc for doc in docs if doc["kind"] == kind]


def one(docs, kind, ending=""):
    """The only manifest of a kind whose name ends so."""
    found = [d for d in of_kind(docs, kind) if d["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, [d["metadata"]["name"] for d in found]
    return found[0]


WORKLOADS = ("Deployment", "StatefulSet", "Job")


def workloads(docs):
    found = [doc for doc in docs if doc["kind"] in WORKLOADS]
    assert found
    return found


def serving(docs):
    """The workloads that stay."""
    return [doc for doc in workloads(docs) if doc["kind"] != "Job"]


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    (only,) = pod(workload)["containers"]
    return only


def settings_text(docs):
    """The settings that the pods of a release read."""
    maps = [d for d in of_kind(docs, "ConfigMap") if "fanfare.toml" in d["data"]]
    texts = {d["data"]["fanfare.toml"] for d in maps}
    assert len(texts) == 1, "the migration reads the same settings as everyone"
    return texts.pop()
