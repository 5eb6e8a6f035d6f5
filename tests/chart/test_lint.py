"""helm lint, and that the chart is of this version of Fanfare."""

import tomllib

import chart
import pytest
import yaml


@pytest.mark.parametrize("name", chart.VALUES)
def test_the_chart_passes_a_strict_lint(name):
    done = chart.helm("lint", "--strict", chart.CHART, "-f", chart.values_file(name))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout
    said = [line for line in done.stdout.splitlines() if line.startswith(("[WARN", "[ERR"))]
    assert said == []


def test_the_images_default_tag_is_the_version_of_the_programs():
    workspace = tomllib.loads((chart.ROOT / "Cargo.toml").read_text())
    version = workspace["workspace"]["package"]["version"]
    assert yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["appVersion"] == version
    for workload in chart.workloads(chart.rendered("distributed-minimal")):
        assert chart.container(workload)["image"] == f"fanfare:{version}"


def test_the_image_is_what_values_say():
    digest = "images.example.internal/fanfare@sha256:" + "0123456789abcdef" * 4
    for workload in chart.workloads(chart.rendered("embedded-full")):
        assert chart.container(workload)["image"] == digest
    for workload in chart.workloads(chart.rendered("distributed-full")):
        assert chart.container(workload)["image"] == "fanfare:0.1.0-test"
