"""The commands, settings and probes of the pods, tried on the real programs."""

import signal

import chart
import programs
import pytest

# Nobody answers there: nothing may listen on port 1 of this machine.
NOBODY = [
    ("kafka.messaging.svc:9092", "127.0.0.1:1"),
    ("scylla.storage.svc:9042", "127.0.0.1:1"),
]
FREE = {"FANFARE__SERVER__LISTEN": "127.0.0.1:0", "FANFARE__SERVER__ADMIN_LISTEN": "127.0.0.1:0"}


def command(workload, docs, tmp_path):
    """What the pod runs, with its settings in a file here; whoever is far away does not answer."""
    text = chart.settings_text(docs)
    for far, near in NOBODY:
        text = text.replace(far, near)
    file = tmp_path / "fanfare.toml"
    file.write_text(text)
    run = chart.container(workload)["command"]
    assert run[-1] == "/etc/fanfare/fanfare.toml"
    return [*run[:-1], str(file)]


def admin(process, ports, alive):
    """The port that answers probes, once the process listens on as many as it should."""

    def listening():
        found = programs.listens_on(process.pid)
        return len(found) == ports and found

    def answering():
        # The front door is bound early and answers late: whoever does not answer is not it.
        for port in programs.eventually(f"{ports} ports", listening):
            try:
                if programs.ask(port, alive, timeout=0.5)[0] == 200:
                    return port
            except OSError:
                continue
        return None

    return programs.eventually("the admin address", answering)


@pytest.mark.parametrize("ending", ["-router", "-worker"])
def test_what_waits_for_its_backends_is_alive_and_not_ready_and_says_why(ending, tmp_path):
    docs = chart.rendered("distributed-minimal")
    deployment = chart.one(docs, "Deployment", ending)
    probes = {
        p: chart.container(deployment)[f"{p}Probe"]["httpGet"]["path"]
        for p in ("liveness", "readiness")
    }
    with programs.started(command(deployment, docs, tmp_path), FREE) as process:
        port = admin(process, 2 if ending == "-router" else 1, probes["liveness"])

        def waits():
            status, text = programs.ask(port, probes["readiness"])
            assert status == 503
            return "waiting" in text and "contact_points" in text and text

        said = programs.eventually("a reason", waits)
        assert len(said.strip().splitlines()) == 1, said
        assert programs.ask(port, probes["liveness"])[0] == 200
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(programs.SOON) == 0


def test_the_one_pod_is_ready_and_stops_clean(tmp_path):
    docs = chart.rendered("embedded-minimal")
    env = {**FREE, "FANFARE__STORAGE__DATA_DIR": str(tmp_path / "data")}
    workload = chart.one(docs, "StatefulSet")
    with programs.started(command(workload, docs, tmp_path), env) as process:
        own = chart.container(workload)
        port = admin(process, 2, own["livenessProbe"]["httpGet"]["path"])
        ready = own["readinessProbe"]["httpGet"]["path"]
        programs.eventually("readiness", lambda: programs.ask(port, ready)[0] == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(programs.SOON) == 0


def test_a_migration_that_cannot_reach_the_store_says_so_and_fails(tmp_path):
    docs = chart.rendered("distributed-minimal")
    job = chart.one(docs, "Job")
    env = {e["name"]: e["value"] for e in chart.container(job)["env"]}
    assert "FANFARE__SERVER__BACKEND_WAIT" in env
    short = {**env, "FANFARE__SERVER__BACKEND_WAIT": "1s"}
    with programs.started(command(job, docs, tmp_path), short) as process:
        _, said = process.communicate(timeout=programs.SOON)
        assert process.returncode == 1, said
        assert "contact_points" in said, said
