"""What is written about the chart is what the chart is."""

import json
import re
import shlex
import subprocess

import chart
import cluster
import pytest
import yaml


def test_the_readme_and_the_schemas_descriptions_are_up_to_date():
    command = [chart.ROOT / "helm/document", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def described(schema, path=""):
    for name, inner in schema.get("properties", {}).items():
        if path == "" and name in ("global", "settings"):
            continue
        yield f"{path}{name}", inner
        yield from described(inner, f"{path}{name}.")


def test_every_value_is_described_and_every_description_is_of_a_value():
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    # What a reference to a Secret consists of is said where the reference is.
    inside = ("Secret.", "resources.", "clientSecret.")
    for path, inner in described(schema):
        if any(part in f"{path}." and not f"{path}.".endswith(part) for part in inside):
            continue
        assert len(inner.get("description", "")) > 5, path
        place = values
        for name in path.split("."):
            assert name in place, f"{path} is not in values.yaml"
            place = place[name]


def test_everything_in_values_yaml_is_in_the_readme():
    readme = (chart.CHART / "README.md").read_text()
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert len(values) > 30
    for name in values:
        assert f"`{name}" in readme or f"### {name}" in readme, name


@pytest.mark.parametrize("name", chart.VALUES)
def test_notes_say_how_to_publish_the_first_event(name):
    # A chart's notes are only shown at an install.
    done = cluster.install({}, name, "--set", "secrets.lookup=false")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:")[1]
    front = [
        s
        for s in chart.of_kind(chart.rendered(name), "Service")
        if s["metadata"]["name"].endswith("-headless")
    ]
    service = front[0]["metadata"]["name"].removesuffix("-headless")
    assert f"port-forward service/{service} 7400:" in notes
    assert "fanfare event publish order.paid" in notes and "/v1/events" in notes
    values = yaml.safe_load(chart.values_file(name).read_text())
    assert ("WARNING" in notes) is values["auth"].get("insecureNoAuth", False)
    for workload in chart.serving(chart.rendered(name)):
        kind = workload["kind"].lower()
        assert f"{kind}/{workload['metadata']['name']}" in notes


def test_commands_in_the_notes_and_the_manual_are_commands():
    texts = [
        (chart.ROOT / "docs/operate.md").read_text(),
        (chart.CHART / "templates/NOTES.txt").read_text(),
        (chart.CHART / "README.head.md").read_text(),
    ]
    shown = [line.strip() for text in texts for line in text.splitlines()]
    shown += [inline for text in texts for inline in re.findall(r"`(fanfare [^`]*)`", text)]
    commands = {tuple(line.split()[1:3]) for line in shown if line.startswith("fanfare ")}
    commands = {words for words in commands if words != ("helm/fanfare",)}
    assert ("event", "publish") in commands and ("key", "new") in commands
    for words in commands:
        words = [word for word in words if word.isalpha()]
        done = subprocess.run(
            [chart.FANFARE, *words, "--help"], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, words


def test_commands_that_nothing_runs_say_so():
    text = (chart.ROOT / "docs/operate.md").read_text()
    blocks = list(re.finditer(r"```sh\n(.*?)```", text, re.S))
    of_clusters = [b for b in blocks if re.search(r"^(helm|kubectl) ", b.group(1), re.M)]
    assert len(of_clusters) > 5
    for block in of_clusters:
        around = text[max(0, block.start() - 250) : block.start()] + text[block.end() :][:40]
        assert "not run here" in around, block.group(1)


def examples():
    """Values shown in the README and the manual."""
    for path in (chart.CHART / "README.head.md", chart.ROOT / "docs/operate.md"):
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.S):
            yield block


@pytest.mark.parametrize(
    "block", examples(), ids=lambda block: block.split("\n", 1)[0].strip("# :")
)
def test_values_that_are_shown_work(block, tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text(block.replace("HASH", "a1" * 32).replace("IMAGE", "fanfare"))
    done = chart.helm("template", "fanfare", chart.CHART, "-f", path)
    assert done.returncode == 0, done.stderr


def test_there_are_values_that_are_shown():
    assert len(list(examples())) == 3


def test_the_first_command_of_the_readme_works():
    text = (chart.CHART / "README.head.md").read_text()
    (command,) = re.findall(r"helm install (fanfare helm/fanfare .*?)\n```", text, re.S)
    words = shlex.split(command.replace("\\\n", " ").replace("HASH", "a1" * 32))
    words[words.index("helm/fanfare")] = chart.CHART
    done = chart.helm("template", *words)
    assert done.returncode == 0 and "kind: StatefulSet" in done.stdout, done.stderr


def test_a_package_of_the_chart_is_the_chart(tmp_path):
    done = chart.helm("package", chart.CHART, "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("fanfare-*.tgz")
    files = ("-n", chart.NAMESPACE, "-f", chart.values_file("distributed-full"))
    same = [
        chart.helm("template", "fanfare", source, *files).stdout
        for source in (package, chart.CHART)
    ]
    assert same[0] == same[1] and same[0]
