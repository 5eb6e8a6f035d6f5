"""Who scales what, and how far down."""

import chart
import yaml


def test_nobody_fights_over_the_number_of_replicas():
    for name in chart.DISTRIBUTED:
        values = yaml.safe_load(chart.values_file(name).read_text())
        scaled = values.get("autoscaling", {}).get("kind", "none") != "none"
        for deployment in chart.of_kind(chart.rendered(name), "Deployment"):
            assert ("replicas" in deployment["spec"]) is not scaled


def behaviour_is_gentle(behaviour):
    down = behaviour["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 65}]
    assert down["stabilizationWindowSeconds"] == 300


def test_hpa_scales_by_cpu_and_age():
    docs = chart.rendered("hpa")
    deployments = {d["metadata"]["name"] for d in chart.of_kind(docs, "Deployment")}
    scalers = chart.of_kind(docs, "HorizontalPodAutoscaler")
    assert {s["spec"]["scaleTargetRef"]["name"] for s in scalers} == deployments
    for scaler in scalers:
        assert scaler["spec"]["minReplicas"] >= 2
        behaviour_is_gentle(scaler["spec"]["behavior"])
    worker = chart.one(docs, "HorizontalPodAutoscaler", "-worker")["spec"]
    assert (worker["minReplicas"], worker["maxReplicas"]) == (3, 16)
    assert [m["type"] for m in worker["metrics"]] == ["Resource", "Pods"]
    without = chart.template("hpa", "--set", "autoscaling.customMetrics=false")
    metrics = chart.one(without, "HorizontalPodAutoscaler", "-worker")["spec"]["metrics"]
    assert [m["type"] for m in metrics] == ["Resource"]


def test_keda_scales_by_lag_and_age_of_what_the_workers_really_read():
    docs = chart.rendered("keda")
    for scaled in chart.of_kind(docs, "ScaledObject"):
        assert scaled["spec"]["minReplicaCount"] >= 2
        behaviour_is_gentle(scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])
    triggers = {
        t["type"]: t for t in chart.one(docs, "ScaledObject", "-worker")["spec"]["triggers"]
    }
    assert set(triggers) == {"cpu", "kafka", "prometheus"}
    kafka = triggers["kafka"]["metadata"]
    assert kafka["consumerGroup"] == "shop.worker.deliveries"
    assert kafka["topic"] == "shop.deliveries"
    assert kafka["bootstrapServers"].count(":9092") == 2
    assert (kafka["sasl"], kafka["tls"]) == ("plaintext", "enable")
    login = chart.one(docs, "TriggerAuthentication")
    assert triggers["kafka"]["authenticationRef"]["name"] == login["metadata"]["name"]
    secrets = {s["parameter"]: (s["name"], s["key"]) for s in login["spec"]["secretTargetRef"]}
    assert secrets == {"password": ("kafka-user", "password"), "ca": ("kafka-ca", "ca.crt")}
    (user,) = login["spec"]["configMapTargetRef"]
    named = [d for d in chart.of_kind(docs, "ConfigMap") if d["metadata"]["name"] == user["name"]]
    assert named[0]["data"][user["key"]] == "fanfare"


def test_the_names_of_group_and_topic_are_those_of_the_code():
    """The trigger names what the code names; these lines are where it does."""
    sources = {
        "crates/event-log-kafka/src/config/properties.rs": 'format!("{}.{}.{}", self.topic_prefix, group.0, stream.name())',
        "crates/event-log-kafka/src/layout.rs": 'format!("{prefix}.deliveries")',
        "delivery-worker/src/worker.rs": 'pub const GROUP: &str = "worker";',
        "crates/event-log/src/log.rs": 'Self::Deliveries => "deliveries"',
    }
    for path, line in sources.items():
        assert line in (chart.ROOT / path).read_text(), path


def test_budgets_let_one_go():
    budgets = chart.of_kind(chart.rendered("distributed-minimal"), "PodDisruptionBudget")
    assert len(budgets) == 2
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
    assert chart.of_kind(chart.rendered("embedded-minimal"), "PodDisruptionBudget") == []
    assert chart.of_kind(chart.rendered("hpa"), "PodDisruptionBudget") == []
