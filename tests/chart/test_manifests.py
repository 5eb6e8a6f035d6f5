"""Every manifest is what an API server would take: judged by Kubernetes' own schemas, and for objects
of operators by the schemas in their CustomResourceDefinitions, unknown fields refused in both."""

import functools
import importlib.resources
import json

import chart
import jsonschema
import pytest
import referencing
import yaml

KUBERNETES = "1.35.0"
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


def definition(group, version, kind):
    """The schema in a CustomResourceDefinition, strict."""
    text = (chart.TOOLS / f"{group}_{kind.lower()}s.yaml").read_text()
    spec = yaml.safe_load(text)["spec"]
    assert (spec["group"], spec["names"]["kind"]) == (group, kind)
    (own,) = [known for known in spec["versions"] if known["name"] == version]
    return strict(own["schema"]["openAPIV3Schema"])


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


@functools.cache
def judge(api, kind):
    """The validator of a kind."""
    group, _, version = api.rpartition("/")
    if group.count(".") and not group.endswith(".k8s.io"):
        schema = definition(group, version, kind)
        # Known to every API server, and not spelt out in a definition.
        schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
        return jsonschema.Draft202012Validator(schema)
    own = f"{group.removesuffix('.k8s.io')}-{version}" if group else version
    schema = kubernetes_schema(f"{kind.lower()}-{own}")
    return jsonschema.Draft202012Validator(schema, registry=kubernetes_definitions())


def kubernetes_schema(name):
    """Kubernetes' own, in which unknown fields are wrong."""
    files = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    return json.loads((files / f"v{KUBERNETES}-local-strict" / f"{name}.json").read_text())


@functools.cache
def kubernetes_definitions():
    definitions = referencing.Resource.from_contents(kubernetes_schema("_definitions"))
    return (definitions @ referencing.Registry()).crawl()


def validate(doc):
    """Raises when an API server would refuse `doc`."""
    judge(doc["apiVersion"], doc["kind"]).validate(doc)


@pytest.mark.parametrize("name", chart.VALUES)
def test_every_manifest_is_valid(name):
    for doc in chart.rendered(name):
        try:
            validate(doc)
        except jsonschema.ValidationError as error:
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
    with pytest.raises(jsonschema.ValidationError):
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
