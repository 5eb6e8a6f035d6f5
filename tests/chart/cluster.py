"""As much of an API server as helm asks when it renders with one: which kinds there are, a namespace
and its Secrets. Nothing can be changed in it, and nothing is. It listens on this machine, and ends
with the test."""

import base64
import contextlib
import http.server
import json
import threading

import chart
import yaml

# Namespaced kinds of the chart, by group and version.
KINDS = {
    "v1": ["ConfigMap", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "batch/v1": ["Job"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "keda.sh/v1alpha1": ["ScaledObject", "TriggerAuthentication"],
    "monitoring.coreos.com/v1": ["ServiceMonitor", "PrometheusRule"],
}


def plural(kind):
    return (kind[:-1] + "ies" if kind.endswith("y") else kind + "s").lower()


def resources(version):
    found = [
        {"name": plural(kind), "kind": kind, "namespaced": True, "verbs": ["get", "list", "create"]}
        for kind in KINDS[version]
    ]
    if version == "v1":
        found.append(
            {"name": "namespaces", "kind": "Namespace", "namespaced": False, "verbs": ["get"]}
        )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": found,
    }


def answers(secrets):
    """What is answered, by path; anything else is not there."""
    paths = {
        "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.4"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": resources("v1"),
        f"/api/v1/namespaces/{chart.NAMESPACE}": {
            "kind": "Namespace",
            "apiVersion": "v1",
            "metadata": {"name": chart.NAMESPACE},
        },
    }
    groups = []
    for version in KINDS:
        if "/" in version:
            paths[f"/apis/{version}"] = resources(version)
            own = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append(
                {"name": version.split("/")[0], "versions": [own], "preferredVersion": own}
            )
    paths["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for name, data in secrets.items():
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        paths[f"/api/v1/namespaces/{chart.NAMESPACE}/secrets/{name}"] = {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": chart.NAMESPACE},
            "data": encoded,
        }
    return paths


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one write: two would wait for each other.
    wbufsize = -1

    def do_GET(self):
        body = self.server.answers.get(self.path.split("?")[0])
        status = 200 if body else 404
        if body is None:
            body = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
            }
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def cluster(secrets):
    """A cluster with one namespace and these Secrets; yields arguments of helm that lead to it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers = answers(secrets)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield [
            "--kube-apiserver",
            f"http://127.0.0.1:{server.server_port}",
            "--qps",
            "1000",
            "--burst-limit",
            "2000",
        ]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def install(secrets, name, *arguments):
    """What helm would install into such a cluster, and what it would say: nothing is installed."""
    with cluster(secrets) as way:
        return chart.helm(
            "install", "fanfare", chart.CHART, "-n", chart.NAMESPACE, "-f", chart.values_file(name),
            "--dry-run=server", "--disable-openapi-validation", *way, *arguments,
        )  # fmt: skip


def manifests(done):
    """The manifests in the output of an install."""
    assert done.returncode == 0, done.stderr
    text = done.stdout.split("MANIFEST:")[1].split("\nNOTES:")[0]
    hooks = done.stdout.split("HOOKS:")[1].split("MANIFEST:")[0]
    return [doc for part in (text, hooks) for doc in yaml.safe_load_all(part) if doc]
