"""Alerts, dashboard and scalers ask only for what Fanfare exports, in queries that parse, and each
alert has a place in docs/operate.md."""

import functools
import json
import re

import chart
import promql_parser
import pytest
import yaml

OPERATE = (chart.ROOT / "docs/operate.md").read_text()
# Prometheus' own: whether a scrape worked.
FOREIGN = {"up"}
RULES = sorted(
    name
    for name in chart.VALUES
    if yaml.safe_load(chart.values_file(name).read_text()).get("prometheusRule", {}).get("enabled")
)
assert len(RULES) >= 2


@functools.cache
def exported():
    """Names and labels of series, from docs/metrics.md, which a test compares with a running server.
    What only a cluster exports is said there in a sentence, and checked against the code here."""
    text = (chart.ROOT / "docs/metrics.md").read_text()
    found = {}
    for row in re.findall(r"^\| `(fanfare_\w+)` \|(.*)$", text, re.M):
        kind, _, labels = (cell.strip() for cell in row[1].split("|")[:3])
        own = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            found[f"{row[0]}_bucket"] = own | {"le"}
            found[f"{row[0]}_sum"] = found[f"{row[0]}_count"] = own
        else:
            found[row[0]] = own
    code = (chart.ROOT / "fanfare/src/serve/backend.rs").read_text()
    for name in re.findall(r"cluster.*?`(fanfare_\w+_total)`", text):
        assert f'"{name.removesuffix("_total")}"' in code, name
        found[name] = set()
    assert len(found) > 25
    return found


# What a scrape through a ServiceMonitor adds.
SCRAPED = {"namespace", "job", "pod", "service", "instance", "le"}


def selectors(expression):
    """Every selector in a PromQL expression, as (name, labels that it matches by)."""
    found = []

    def walk(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {m.name for m in node.matchers.matchers}))
        for part in ("expr", "lhs", "rhs", "param", "vector_selector"):
            inner = getattr(node, part, None)
            if inner is not None:
                walk(inner)
        for argument in getattr(node, "args", None) or []:
            walk(argument)

    walk(promql_parser.parse(expression))
    return found


def judge(expression):
    """Only series that are exported, by labels that they have, of this release alone."""
    used = selectors(expression)
    assert used or expression.startswith("vector"), expression
    for name, labels in used:
        known = exported().get(name) if name not in FOREIGN else set()
        assert known is not None, f"{name} is not exported: {expression}"
        assert labels <= known | SCRAPED, f"{name} has no {labels - known - SCRAPED}"
        assert {"namespace", "job"} <= labels, f"{name} of every release: {expression}"
    grouped = set()
    for labels in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        grouped |= {label.strip() for label in labels.split(",")}
    known = set().union(*(exported().get(name, set()) for name, _ in used))
    assert grouped <= known | SCRAPED, f"no series has {grouped - known - SCRAPED}"


def alerts(name):
    (group,) = chart.one(chart.rendered(name), "PrometheusRule")["spec"]["groups"]
    assert len(group["rules"]) >= 15
    return group["rules"]


@pytest.mark.parametrize("name", RULES)
def test_alerts_ask_for_what_is_exported(name):
    for alert in alerts(name):
        judge(alert["expr"])
        assert "SELECTOR" not in alert["expr"]


def anchors(text):
    """As GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", RULES)
def test_every_alert_has_a_first_step_and_a_place_in_the_manual(name):
    for alert in alerts(name):
        notes = alert["annotations"]
        assert len(notes["summary"]) > 20 and notes["summary"].endswith(".")
        assert len(notes["runbook"]) > 30 and "\n" not in notes["runbook"]
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        page, anchor = notes["runbook_url"].split("#")
        assert page.endswith("operate.md")
        assert anchor in anchors(OPERATE), f"docs/operate.md has no section {alert['alert']}"


def test_the_manual_has_no_alert_that_is_gone():
    names = {alert["alert"] for alert in alerts("distributed-full")}
    assert set(re.findall(r"^### (Fanfare\w+)$", OPERATE, re.M)) == names


def test_links_within_the_manual_lead_somewhere():
    links = re.findall(r"\]\(#([^)]*)\)", OPERATE)
    assert links and set(links) <= anchors(OPERATE)


def test_an_alert_can_be_left_out():
    names = {alert["alert"] for alert in alerts("embedded-full")}
    assert "FanfareDeadLetters" not in names and "FanfareDeliveriesLate" in names


def test_alerts_look_at_this_release():
    for alert in alerts("distributed-full"):
        assert 'namespace="shop",job="events-admin"' in alert["expr"]
    service = chart.one(chart.rendered("distributed-full"), "Service", "-admin")
    assert service["metadata"]["name"] == "events-admin"
    monitor = chart.one(chart.rendered("distributed-full"), "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}


def dashboard():
    config = chart.one(chart.rendered("distributed-full"), "ConfigMap", "-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    return json.loads(config["data"]["fanfare.json"])


def test_panels_ask_for_what_is_exported():
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert len(panels) > 15
    for panel in panels:
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            judge(target["expr"])
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert label in target["expr"], f"{panel['title']}: {label}"


def test_panels_do_not_overlap_and_names_are_given_once():
    panels = dashboard()["panels"]
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    assert len({p["id"] for p in panels}) == len(panels)
    assert len({p["title"] for p in panels}) == len(panels)


def test_the_dashboards_variables_ask_for_what_is_exported():
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            (name,) = re.findall(r"label_values\((\w+)", variable["query"]["query"])
            assert name in exported()


def test_every_metric_is_on_the_dashboard():
    shown = {
        name
        for p in dashboard()["panels"]
        for t in p.get("targets", [])
        for name, _ in selectors(t["expr"])
    }
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported()}
    assert families - {re.sub("_bucket$", "", name) for name in shown} == set()


def test_scalers_ask_for_what_is_exported():
    (trigger,) = [
        t
        for t in chart.one(chart.rendered("keda"), "ScaledObject", "-worker")["spec"]["triggers"]
        if t["type"] == "prometheus"
    ]
    judge(trigger["metadata"]["query"])
    metrics = chart.one(chart.rendered("hpa"), "HorizontalPodAutoscaler", "-worker")["spec"][
        "metrics"
    ]
    names = [m["pods"]["metric"]["name"] for m in metrics if m["type"] == "Pods"]
    assert len(names) == 1 and names[0] in exported()


@pytest.mark.parametrize(
    "expression",
    [
        'sum(rate(fanfare_delivery_atempts_total{namespace="a",job="b"}[5m]))',
        'sum by (tenant) (fanfare_delivery_in_flight{namespace="a",job="b"})',
        'fanfare_delivery_in_flight{namespace="a",job="b",blame="us"}',
        "fanfare_delivery_in_flight",
    ],
)
def test_a_query_for_what_is_not_exported_is_noticed(expression):
    """The judge itself is judged."""
    with pytest.raises(AssertionError):
        judge(expression)
