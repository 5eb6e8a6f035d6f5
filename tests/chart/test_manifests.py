"""Every manifest is what an API server would take: judged by Kubernetes' own schemas, and for objects
of operators by the schemas in their CustomResourceDefinitions, unknown fields refused in both."""

import functools

import chart
import jsonschema
import kubernetes_validate
import pytest
import yaml

KUBERNETES = "1.35"
# Definitions list "=" among operators, which YAML 1.1 has a meaning for.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)
# Kinds that must occur, so that nothing passes for want of being rendered.
EXPECTED = {
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PrometheusRule",
    "ScaledObject",
    "Service",
    "ServiceAccount",
    "ServiceMonitor",
    "StatefulSet",
    "TriggerAuthentication",
}


@functools.cache
def definitions():
    """Schemas by kind and version, strict."""
    found = {}
    for path in chart.TOOLS.glob("*.yaml"):
        for doc in yaml.safe_load_all(path.read_text()):
            for version in doc["spec"]["versions"]:
                api = f"{doc['spec']['group']}/{version['name']}"
                schema = version["schema"]["openAPIV3Schema"]
                found[api, doc["spec"]["names"]["kind"]] = strict(schema)
    assert len(found) > 10
    return found


def strict(schema):
    """A structural schema as JSON Schema, where unknown fields are wrong."""
    if not isinstance(schema, dict):
        return schema
    new = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    new.pop("format", None)
    if schema.get("x-kubernetes-int-or-string"):
        new.pop("type", None)
        new["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    for key in ("items", "additionalProperties"):
        if key in new:
            new[key] = strict(new[key])
    if "properties" in new:
        new["properties"] = {name: strict(value) for name, value in new["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            new.setdefault("additionalProperties", False)
    return new


def validate(doc):
    """Raises when an API server would refuse `doc`."""
    if "." in doc["apiVersion"].split("/")[0] and not doc["apiVersion"].split("/")[0].endswith(
        "k8s.io"
    ):
        schema = dict(definitions()[doc["apiVersion"], doc["kind"]])
        # Known to every API server, and not spelt out in a definition.
        schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
        jsonschema.Draft202012Validator(schema).validate(doc)
    else:
        kubernetes_validate.validate(doc, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", chart.VALUES)
def test_every_manifest_is_valid(name):
    for doc in chart.rendered(name):
        try:
            validate(doc)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            pytest.fail(f"{doc['kind']} {doc['metadata']['name']}: {error.message}")


def nothings(value, path=""):
    """Fields that are there and say nothing: a server takes them, and so do typing errors."""
    if value is None:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from nothings(inner, f"{path}.{key}")
    for index, inner in enumerate(value) if isinstance(value, list) else ():
        yield from nothings(inner, f"{path}[{index}]")


@pytest.mark.parametrize("name", chart.VALUES)
def test_no_field_is_empty(name):
    for doc in chart.rendered(name):
        assert list(nothings(doc)) == [], doc["metadata"]["name"]


def test_every_kind_occurs():
    kinds = {doc["kind"] for name in chart.VALUES for doc in chart.rendered(name)}
    assert kinds == EXPECTED


@pytest.mark.parametrize(
    ("name", "kind", "where"),
    [
        ("distributed-minimal", "Deployment", ("spec", "template", "spec")),
        ("distributed-minimal", "Deployment", ("spec",)),
        ("embedded-minimal", "StatefulSet", ("spec", "template", "spec", "containers", 0)),
        ("distributed-minimal", "NetworkPolicy", ("spec",)),
        ("keda", "ScaledObject", ("spec",)),
        ("keda", "ScaledObject", ("spec", "triggers", 0)),
        ("embedded-full", "ServiceMonitor", ("spec", "endpoints", 0)),
        ("embedded-full", "PrometheusRule", ("spec", "groups", 0, "rules", 0)),
    ],
)
def test_a_misspelt_field_is_noticed(name, kind, where):
    """The judge itself is judged."""
    doc = yaml.safe_load(yaml.safe_dump(chart.of_kind(chart.rendered(name), kind)[0]))
    validate(doc)
    place = doc
    for step in where:
        place = place[step]
    place["replicaz"] = 1
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(doc)


@pytest.mark.parametrize("name", chart.VALUES)
def test_names_are_unique_and_short_enough(name):
    docs = chart.rendered(name)
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in docs]
    assert len(set(names)) == len(names)
    long = "a" * 53
    done = chart.helm("template", long, chart.CHART, "-f", chart.values_file(name))
    assert done.returncode == 0, done.stderr
    for doc in yaml.safe_load_all(done.stdout):
        if doc:
            assert len(doc["metadata"]["name"]) <= 63, doc["metadata"]["name"]


@pytest.mark.parametrize("name", chart.VALUES)
def test_every_selector_finds_its_pods_and_no_others(name):
    docs = chart.rendered(name)
    labels = {
        w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"]
        for w in chart.workloads(docs)
    }

    def selected(selector):
        return {n for n, has in labels.items() if selector.items() <= has.items()}

    serving = {w["metadata"]["name"] for w in chart.serving(docs)}
    fronts = {n for n in serving if not n.endswith("-worker")}
    for service in chart.of_kind(docs, "Service"):
        admin = service["metadata"]["name"].endswith("-admin")
        assert selected(service["spec"]["selector"]) == (serving if admin else fronts)
    for kind in ("Deployment", "StatefulSet"):
        for workload in chart.of_kind(docs, kind):
            selector = workload["spec"]["selector"]["matchLabels"]
            assert selected(selector) == {workload["metadata"]["name"]}
    for budget in chart.of_kind(docs, "PodDisruptionBudget"):
        own = budget["metadata"]["name"]
        assert selected(budget["spec"]["selector"]["matchLabels"]) == {own}
    for policy in chart.of_kind(docs, "NetworkPolicy"):
        assert len(selected(policy["spec"]["podSelector"]["matchLabels"])) == 1
