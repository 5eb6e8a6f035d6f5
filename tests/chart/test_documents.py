"""What is written about the chart is what the chart is."""

import json
import re
import shlex
import subprocess

import chart
import cluster
import programs
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


def commands_of_the_manual(program):
    """Every command of a program that docs/operate.md gives, in a block or in a sentence, and the text around it."""
    text = (chart.ROOT / "docs/operate.md").read_text()
    blocks = list(re.finditer(r"```(\w*)\n(.*?)```", text, re.S))
    for block in blocks:
        around = text[max(0, block.start() - 250) : block.start()] + text[block.end() :][:40]
        if block.group(1) == "sh":
            for line in re.findall(rf"^{program} .*", block.group(2), re.M):
                yield line, around
    for block in reversed(blocks):
        text = text[: block.start()] + text[block.end() :]
    for paragraph in text.split("\n\n"):
        for inline in re.findall(rf"`({program} [^`]*)`", paragraph):
            yield " ".join(inline.split()), paragraph


def test_commands_that_nothing_runs_say_so():
    for program in ("helm", "kubectl"):
        found = list(commands_of_the_manual(program))
        assert len(found) > 3
        for command, around in found:
            # `helm uninstall` only names it.
            if len(command.split()) > 2:
                assert "not run here" in around, command


def test_commands_of_fanfare_in_the_manual_work(tmp_path):
    """As they are written, on a server with one endpoint, whose id takes the place of ID."""
    data = tmp_path / "data"
    anywhere = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with programs.started(["fanfare", "serve", "--dev", "--data-dir", data, *anywhere], {}):
        addresses = data / "addresses.json"
        programs.eventually("the server", addresses.exists)
        env = {"FANFARE_SERVER": f"http://{json.loads(addresses.read_text())['listen']}"}

        def fanfare(*words):
            command = [chart.FANFARE, *words]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            return done.stdout

        create = "endpoint create http://127.0.0.1:1/ --event-type t -o json"
        endpoint = json.loads(fanfare(*create.split()).splitlines()[0])["id"]
        commands = {command for command, _ in commands_of_the_manual("fanfare")}
        # What lacks its operand or its store is only named.
        named = {"fanfare delivery get", "fanfare migrate"}
        assert named < commands and len(commands) > 8
        for command in commands - named:
            fanfare(*(endpoint if word == "ID" else word for word in shlex.split(command)[1:]))


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
