"""What every pod is, whatever the values: restricted, probed, given time to drain, replaced when its
settings change."""

import chart
import pytest
import yaml

PROGRAMS = {
    "embedded": ["fanfare", "serve"],
    "router": ["fanfare-router"],
    "worker": ["fanfare-delivery-worker"],
    "migration": ["fanfare", "migrate"],
}


@pytest.mark.parametrize("name", chart.VALUES)
def test_pods_are_restricted(name):
    for workload in chart.workloads(chart.rendered(name)):
        pod, own = chart.pod(workload), chart.container(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
        allowed = {"configMap", "projected", "emptyDir"}
        for volume in pod["volumes"]:
            assert len(volume.keys() & allowed) == 1, volume
        assert "memory" in own["resources"]["limits"] and "cpu" in own["resources"]["requests"]


@pytest.mark.parametrize("name", chart.VALUES)
def test_each_pod_runs_its_program(name):
    for workload in chart.workloads(chart.rendered(name)):
        component = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        command = chart.container(workload)["command"]
        assert command == [*PROGRAMS[component], "--config", "/etc/fanfare/fanfare.toml"]
        mounts = {m["mountPath"]: m for m in chart.container(workload)["volumeMounts"]}
        assert mounts["/etc/fanfare/fanfare.toml"]["subPath"] == "fanfare.toml"


@pytest.mark.parametrize("name", chart.VALUES)
def test_probes_ask_the_admin_address_and_liveness_asks_only_the_process(name):
    for workload in chart.serving(chart.rendered(name)):
        own = chart.container(workload)
        ports = {port["name"]: port["containerPort"] for port in own["ports"]}
        assert ports["admin"] == 7401
        paths = {
            probe: (own[probe]["httpGet"]["path"], own[probe]["httpGet"]["port"])
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {
            "startupProbe": ("/livez", "admin"),
            "livenessProbe": ("/livez", "admin"),
            "readinessProbe": ("/readyz", "admin"),
        }
        is_worker = workload["metadata"]["name"].endswith("-worker")
        assert ("front" in ports) is not is_worker


@pytest.mark.parametrize("name", chart.VALUES)
def test_the_grace_period_outlasts_the_drain(name):
    values = yaml.safe_load(chart.values_file(name).read_text())
    drain = values.get("drainDeadlineSeconds", 45)
    assert f'drain_deadline = "{drain}s"' in chart.settings_text(chart.rendered(name))
    for workload in chart.serving(chart.rendered(name)):
        hook = chart.container(workload).get("lifecycle", {}).get("preStop", {})
        before = hook.get("sleep", {}).get("seconds", 0)
        assert chart.pod(workload)["terminationGracePeriodSeconds"] >= drain + before + 5


@pytest.mark.parametrize("name", chart.DISTRIBUTED)
def test_a_rollout_never_goes_below_the_wanted_number(name):
    deployments = chart.of_kind(chart.rendered(name), "Deployment")
    assert len(deployments) == 2
    for deployment in deployments:
        strategy = deployment["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        spread = chart.pod(deployment)["topologySpreadConstraints"]
        strict = "DoNotSchedule" if name == "distributed-full" else "ScheduleAnyway"
        assert {s["topologyKey"]: s["whenUnsatisfiable"] for s in spread} == {
            "kubernetes.io/hostname": strict,
            "topology.kubernetes.io/zone": "ScheduleAnyway",
        }


def test_the_volume_of_embedded_stays():
    stateful = chart.one(chart.rendered("embedded-minimal"), "StatefulSet")
    assert stateful["spec"]["replicas"] == 1
    kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"] == kept
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    mounts = {m["name"]: m["mountPath"] for m in chart.container(stateful)["volumeMounts"]}
    assert mounts["data"] == "/var/lib/fanfare"
    assert 'data_dir = "/var/lib/fanfare/data"' in chart.settings_text(
        chart.rendered("embedded-minimal")
    )


def checksums(docs):
    return {
        workload["metadata"]["name"]: {
            key: value
            for key, value in workload["spec"]["template"]["metadata"]["annotations"].items()
            if key.startswith("checksum/")
        }
        for workload in chart.serving(docs)
    }


@pytest.mark.parametrize(
    ("changed", "by"),
    [
        ("checksum/settings", "settings.worker.in_flight=7"),
        ("checksum/settings", "kafka.bootstrapServers[0]=other.messaging.svc:9092"),
        ("checksum/settings", "auth.keys[0].name=other"),
        ("checksum/secrets", "secrets.revision=other"),
    ],
)
def test_a_change_of_settings_or_secrets_is_a_rollout(changed, by):
    before = checksums(chart.rendered("distributed-minimal"))
    after = checksums(chart.template("distributed-minimal", "--set", by))
    assert len(before) == 2
    for name, sums in before.items():
        differing = {key for key in sums if after[name][key] != sums[key]}
        assert differing == {changed}


@pytest.mark.parametrize("by", ["router.replicas=5", "podDisruptionBudget.enabled=false"])
def test_other_changes_are_none(by):
    before = {
        w["metadata"]["name"]: w["spec"]["template"]
        for w in chart.serving(chart.rendered("distributed-minimal"))
    }
    after = chart.template("distributed-minimal", "--set", by)
    assert before == {w["metadata"]["name"]: w["spec"]["template"] for w in chart.serving(after)}


def test_secrets_are_only_referred_to():
    docs = chart.rendered("distributed-full")
    assert chart.of_kind(docs, "Secret") == []
    for workload in chart.workloads(docs):
        files = {
            item["path"]: (source["secret"]["name"], item["key"])
            for volume in chart.pod(workload)["volumes"]
            if "projected" in volume
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }
        cql = {"cql-password": ("cql-user", "password"), "cql-ca.pem": ("cql-ca", "tls-ca.pem")}
        kafka = {
            "kafka-password": ("kafka-user", "pass.word"),
            "kafka-ca.pem": ("kafka-ca", "ca.crt"),
            "kafka-certificate.pem": ("kafka-client", "tls.crt"),
            "kafka-key.pem": ("kafka-client", "tls.key"),
        }
        # The migration knows the store only.
        assert files == (cql if workload["kind"] == "Job" else {**cql, **kafka})
        for file in files:
            assert f'"/etc/fanfare/secrets/{file}"' in chart.settings_text(docs)


def test_the_migration_runs_before_everything_and_may_run_twice():
    docs = chart.rendered("distributed-full")
    hooks = [d for d in docs if "helm.sh/hook" in d["metadata"].get("annotations", {})]
    assert {d["kind"] for d in hooks} == {"Job", "ConfigMap", "NetworkPolicy"}
    for hook in hooks:
        annotations = hook["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        policy = annotations["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
        first = hook["kind"] != "Job"
        assert (int(annotations["helm.sh/hook-weight"]) < 0) is first
    job = chart.one(docs, "Job")
    env = {e["name"]: e.get("value") for e in chart.container(job)["env"]}
    assert env["FANFARE__SERVER__BACKEND_WAIT"] == "2m"
    assert chart.pod(job).get("serviceAccountName", "default") == "default"
    assert chart.of_kind(chart.rendered("hpa"), "Job") == []


def test_one_service_balances_connections_and_one_lets_the_client_balance():
    docs = chart.rendered("distributed-minimal")
    assert "clusterIP" not in chart.one(docs, "Service", "fanfare")["spec"]
    headless = chart.one(docs, "Service", "-headless")["spec"]
    assert headless["clusterIP"] == "None" and "publishNotReadyAddresses" not in headless
    stateful = chart.one(chart.rendered("embedded-minimal"), "StatefulSet")
    names = {
        d["metadata"]["name"] for d in chart.of_kind(chart.rendered("embedded-minimal"), "Service")
    }
    assert stateful["spec"]["serviceName"] in names
