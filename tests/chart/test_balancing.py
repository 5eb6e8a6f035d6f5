"""What the chart's README says of balancing calls: a gRPC client over the addresses of several
servers, as the headless Service resolves to them, takes turns, and goes on when one drains."""

import contextlib
import json
import re
import signal
import time

import chart
import grpc
import programs

CALLS = 40


def field(number, data):
    """A field of bytes in protobuf's encoding, shorter than 128."""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def request(number):
    """A PublishRequest (proto/fanfare/v1/event.proto)."""
    texts = {1: f"call-{number}", 2: "/shop", 3: "order.paid", 9: "{}"}
    return field(1, b"".join(field(n, text.encode()) for n, text in texts.items()))


@contextlib.contextmanager
def server(directory):
    """A server on a free port; yields the process, its address and that of its metrics."""
    command = ["fanfare", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with programs.started([*command, "--data-dir", str(directory)], {}) as process:
        file = directory / "addresses.json"
        programs.eventually("readiness", file.exists)
        addresses = json.loads(file.read_text())
        yield process, addresses["listen"], int(addresses["admin_listen"].split(":")[1])


def accepted(admin):
    text = programs.ask(admin, "/metrics")[1]
    found = re.search(r'^fanfare_ingest_events_total\{outcome="accepted"\} (\d+)', text, re.M)
    return int(found[1]) if found else 0


def service_config():
    """As the README has it, with the retry that every producer needs."""
    text = (chart.CHART / "README.head.md").read_text()
    (shown,) = re.findall(r"`(\{\"loadBalancingConfig.*?\})`", text)
    return shown


def test_calls_are_spread_one_by_one_and_a_drain_costs_none(tmp_path):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(tmp_path / name)) for name in ("a", "b")]
        target = "ipv4:" + ",".join(listen for _, listen, _ in servers)
        # A list of addresses is no name that a server may be called by; the Service's is.
        authority = ("grpc.default_authority", "fanfare-headless.shop.svc.cluster.local:7400")
        options = [("grpc.service_config", service_config()), authority]
        channel = stack.enter_context(grpc.insecure_channel(target, options))
        publish = channel.unary_unary("/fanfare.v1.EventService/Publish")

        def call(number):
            publish(request(number), timeout=10, wait_for_ready=True)

        def both_connected():
            call(0)
            return all(accepted(admin) > 0 for _, _, admin in servers)

        # The same event again is a duplicate, so it counts once at each.
        programs.eventually("connections to both", both_connected)
        before = [accepted(admin) for _, _, admin in servers]
        for number in range(1, CALLS + 1):
            call(number)
        taken = [accepted(a) - b for (_, _, a), b in zip(servers, before, strict=True)]
        assert sum(taken) == CALLS, taken
        assert min(taken) >= CALLS // 2 - 2, taken

        process, _, _ = servers[0]
        process.send_signal(signal.SIGTERM)
        retried = 0
        for number in range(CALLS + 1, 2 * CALLS + 1):
            try:
                call(number)
            except grpc.RpcError as error:
                # Refused while it leaves, and said to be worth repeating.
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                retried += 1
                call(number)
            time.sleep(0.005)
        assert process.wait(programs.SOON) == 0
        assert retried <= CALLS // 4
        # Half of the first calls, and at least half of those of the drain.
        assert accepted(servers[1][2]) >= before[1] + CALLS - 4
