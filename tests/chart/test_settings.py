"""The settings in the rendered chart are what the programs take, judged by the programs."""

import json
import subprocess
import tomllib

import chart
import pytest
import yaml


def check(text, tmp_path):
    """fanfare config check on a settings file; the settings in force, or the refusal."""
    file = tmp_path / "fanfare.toml"
    file.write_text(text)
    command = [chart.FANFARE, "config", "check", "-o", "json", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={})
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("name", chart.VALUES)
def test_the_program_accepts_the_settings(name, tmp_path):
    text = chart.settings_text(chart.rendered(name))
    force = check(text, tmp_path)
    assert isinstance(force, dict), force
    values = yaml.safe_load(chart.values_file(name).read_text())
    assert force["storage"]["mode"] == values.get("mode", "embedded")
    # Whatever is written is in force as written, once the redacted is left out.
    written = tomllib.loads(text)
    for key in written.pop("keys", []):
        assert key["name"] in {known["name"] for known in force["keys"]}
    for section, settings in written.items():
        for setting, value in settings.items():
            assert alike(force[section][setting], value), f"{section}.{setting}"


def alike(force, value):
    """Equal, but for defaults that were added to a table, and sizes and times in other units."""
    if isinstance(value, dict):
        return all(name in force and alike(force[name], v) for name, v in value.items())
    if isinstance(value, str) and isinstance(force, str) and value[:1].isdigit():
        return amount(force) == amount(value)
    if isinstance(value, list) and isinstance(force, list):
        return len(force) == len(value) and all(map(alike, force, value))
    return force == value


UNITS = {
    "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip


def amount(text):
    digits = text.rstrip("msdhKMGiB")
    unit = text[len(digits) :]
    return int(digits) * UNITS[unit] if digits.isdigit() and unit in UNITS else text


def test_settings_of_every_shape_arrive():
    settings = tomllib.loads(chart.settings_text(chart.rendered("distributed-full")))
    kafka = settings["kafka"]
    assert kafka["record_max_bytes"] == 67108864
    assert kafka["dedicated_topics"] == [{"subject": "order", "number": 0}]
    assert kafka["librdkafka"] == {"socket.keepalive.enable": "true"}
    assert kafka["security"]["sasl"] == {
        "mechanism": "scram-sha512",
        "username": "fanfare",
        "password_file": "/etc/fanfare/secrets/kafka-password",
    }
    assert settings["cql"]["contact_points"] == ["10.9.1.1:9042", "10.9.1.2:9042", "[fd00::3]:9142"]
    full = tomllib.loads(chart.settings_text(chart.rendered("embedded-full")))
    assert full["worker"]["retry_schedule"] == ["5s", "1m", "1h"]
    assert full["egress"]["allow_hosts"] == ["hooks.partners.svc", "*.example.internal"]
    assert [key.get("tenants") for key in full["keys"]] == [["acme", "globex"], None]


def test_text_cannot_break_out_of_its_setting(tmp_path):
    bad = 'a"\n[server]\nlisten = "0.0.0.0:1"\n#\\'
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"cql": {"datacenter": bad}}))
    docs = chart.template("distributed-minimal", "-f", path)
    settings = tomllib.loads(chart.settings_text(docs))
    assert settings["cql"]["datacenter"] == bad
    assert settings["server"]["listen"] == "0.0.0.0:7400"


def test_the_directory_stays_below_the_volume():
    for size, bytes_max in (("20Gi", "16384MiB"), ("1Ti", "838860MiB"), ("512Mi", "409MiB")):
        docs = chart.template("embedded-minimal", "--set", f"embedded.persistence.size={size}")
        settings = tomllib.loads(chart.settings_text(docs))
        assert settings["storage"]["max_bytes"] == bytes_max


def test_the_program_does_refuse(tmp_path):
    """The judge itself is judged."""
    text = chart.settings_text(chart.rendered("embedded-minimal"))
    assert "drain_deadline" in check(text.replace('"45s"', '"5s"'), tmp_path)
    assert "did you mean" in check(text.replace("drain_deadline", "drain_deadlin"), tmp_path)


def test_the_chart_proposes_no_setting_that_schemas_do_not_know():
    known = json.loads((chart.ROOT / "schemas/config.schema.json").read_text())["properties"]
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    own = schema["properties"]["settings"]["properties"]
    for section, described in own.items():
        for name in described.get("properties", {}):
            assert name in known[section]["properties"], f"{section}.{name}"
