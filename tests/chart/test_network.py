"""Who reaches what: as the NetworkPolicies say it, evaluated as a policy engine would."""

import ipaddress
import json

import chart
import pytest


def policy(name, ending):
    return chart.one(chart.rendered(name), "NetworkPolicy", ending)["spec"]


def reaches(spec, address, port):
    """Whether a pod under the policy may open a connection to an address."""
    address = ipaddress.ip_address(address)
    for rule in spec["egress"]:
        ports = {p.get("port") for p in rule.get("ports", [])}
        if ports and port not in ports:
            continue
        for peer in rule.get("to", []):
            block = peer.get("ipBlock")
            if block and within(address, block["cidr"]):
                if not any(within(address, e) for e in block.get("except", [])):
                    return True
    return False


def within(address, network):
    network = ipaddress.ip_network(network)
    return address.version == network.version and address in network


def namespaces(spec, port):
    """Namespaces of which a port may be reached; None is the own."""
    found = set()
    for rule in spec["egress"]:
        if port in {p.get("port") for p in rule.get("ports", [])}:
            for peer in rule["to"]:
                labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
                if "namespaceSelector" in peer:
                    found.add(labels["kubernetes.io/metadata.name"])
                elif "podSelector" in peer:
                    found.add(None)
    return found


CASES = json.loads((chart.ROOT / "tests/cases/ssrf_ip_cases.json").read_text())


@pytest.mark.parametrize(
    ("name", "ending"), [("embedded-minimal", "-embedded"), ("distributed-minimal", "-worker")]
)
def test_senders_reach_what_fanfare_may_call_and_nothing_else(name, ending):
    spec = policy(name, ending)
    judged = 0
    for address, allowed in cases():
        assert reaches(spec, address, 443) is allowed, address
        judged += 1
    assert judged > 50


def cases():
    for kind, allowed in (("ip_deny_cases", False), ("ip_allow_cases", True)):
        for text in CASES[kind]:
            address = ipaddress.ip_address(text)
            # What is written as IPv4 in IPv6 leaves as IPv4, and is judged as that.
            if address.version == 4 or not address.ipv4_mapped:
                yield text, allowed


def test_private_networks_open_by_values():
    spec = policy("embedded-full", "-embedded")
    assert reaches(spec, "10.1.2.3", 8443) and not reaches(spec, "10.2.0.1", 8443)
    assert reaches(spec, "fd12:3456::1", 443) and not reaches(spec, "fd13::1", 443)
    assert not reaches(spec, "169.254.169.254", 80)


def test_routers_and_the_migration_send_nothing():
    for ending in ("-router", "-migration"):
        spec = policy("distributed-minimal", ending)
        assert not reaches(spec, "93.184.216.34", 443)
        assert namespaces(spec, 53) == {"kube-system"}
        assert namespaces(spec, 9042) == {"storage"}
    assert namespaces(policy("distributed-minimal", "-router"), 9092) == {"messaging"}
    assert namespaces(policy("distributed-minimal", "-migration"), 9092) == set()


def test_addresses_of_backends_become_peers():
    worker = policy("distributed-full", "-worker")
    assert reaches(worker, "10.9.1.1", 9042) and not reaches(worker, "10.9.1.9", 9042)
    assert reaches(worker, "fd00::3", 9142)
    assert reaches(worker, "10.8.7.6", 9095) and not reaches(worker, "10.8.7.6", 22)
    assert reaches(worker, "10.7.0.1", 4317)
    bare = policy("hpa", "-worker")
    assert namespaces(bare, 9092) == namespaces(bare, 9042) == {None}


def test_only_the_front_door_is_called():
    for spec, front in (
        (policy("distributed-minimal", "-router"), True),
        (policy("distributed-minimal", "-worker"), False),
    ):
        ports = [p["port"] for rule in spec["ingress"] for p in rule["ports"]]
        assert ports == (["front", "admin"] if front else ["admin"])
        assert spec["policyTypes"] == ["Ingress", "Egress"]
    full = policy("embedded-full", "-embedded")["ingress"]
    assert full[0]["from"] == [{"podSelector": {"matchLabels": {"producer": "yes"}}}]
    assert chart.of_kind(chart.rendered("keda"), "NetworkPolicy") == []
