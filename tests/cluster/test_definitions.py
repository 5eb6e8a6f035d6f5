"""Optional objects, judged by a server that has their real definitions."""

import cluster
from cluster import kubectl, run

OPTIONAL = ("--set", "autoscaling.kind=keda", "--set", "autoscaling.prometheusAddress=http://prometheus.monitoring:9090",
            "--set", "serviceMonitor.enabled=true", "--set", "prometheusRule.enabled=true", "--set", "grafanaDashboard.enabled=true")
KINDS = ("scaledobject.keda.sh", "servicemonitor.monitoring.coreos.com", "prometheusrule.monitoring.coreos.com")


def test_optional_objects(tmp_path, shown):
    for definition in sorted(cluster.TOOLS.glob("*.yaml")):
        if any(kind in definition.name for kind in ("scaledobjects", "servicemonitors", "prometheusrules", "triggerauth")):
            kubectl("apply", "--server-side", "--force-conflicts", "-f", definition)
    release = cluster.Release("optional", "distributed.yaml", tmp_path)
    cluster.eventually("definitions are served", 30, lambda: all(
        run("kubectl", "get", kind, "-n", "optional", check=False).returncode == 0 for kind in KINDS))
    try:
        manifests = release.helm("template", "fanfare", cluster.CHART, *release._values(cluster.TAGS[0], OPTIONAL), "--no-hooks",
                                 "--api-versions", "monitoring.coreos.com/v1", "--api-versions", "keda.sh/v1alpha1").stdout
        accepted = kubectl("apply", "--dry-run=server", "--validate=strict", "-n", "optional", "-f", "-", text=manifests)
        for kind in KINDS:
            assert kind in accepted, accepted
        # The server does judge.
        broken = manifests.replace("pollingInterval:", "poolingInterval:")
        if broken != manifests:
            refused = run("kubectl", "apply", "--dry-run=server", "--validate=strict", "-n", "optional", "-f", "-", text=broken, check=False)
            assert refused.returncode != 0 and "poolingInterval" in refused.stderr, refused.stderr
        lines = accepted.splitlines()
        shown("ScaledObject, ServiceMonitor, PrometheusRule", f"{len(lines)} objects accepted by a dry run of the server")
    finally:
        kubectl("delete", "namespace", "optional", "--wait=true", "--timeout=60s")
