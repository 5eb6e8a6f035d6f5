"""The cluster, the chart in it, and a load on it."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import re
import subprocess
import threading
import time

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "helm/fanfare"
TOOLS = pathlib.Path(os.environ["FANFARE_CHART_TOOLS"])
FANFARE = os.environ["FANFARE_BIN"]
# How a program gets to where the addresses of pods and services are.
INSIDE = os.environ.get("FANFARE_INSIDE", "").split()
# An address of this machine that pods reach.
NODE = os.environ.get("FANFARE_NODE_ADDRESS", "10.240.0.1")
TAGS = ("0.1.0", "0.1.0-next")
RATE = float(os.environ.get("FANFARE_RATE", "40"))
# Where the logs of pods go, and what came more than once.
LOGS = pathlib.Path(os.environ["FANFARE_LOGS"])
TABLE = []
# How long the Rust client waits for a try, and how long it tries; producers of these tests are no more patient.
RETRIES = (ROOT / "proto/src/client/retry.rs").read_text()
TRY_TIMEOUT, GIVE_UP_AFTER = (
    int(re.search(rf"{name}: Duration::from_secs\((\d+)\)", RETRIES)[1]) for name in ("try_timeout", "give_up_after"))
# What one crash may repeat where it is counted (see `bounded`): what a worker has in flight, or answered and not
# yet committed; what a router has appended and not yet committed. As in tests/tests/distributed/stage.rs.
IN_FLIGHT_MAX, OPEN_MAX = 64, 128
REPEATS_MAX = {"worker": IN_FLIGHT_MAX, "router": OPEN_MAX, "embedded": IN_FLIGHT_MAX + OPEN_MAX}
BOUNDED = ("--set", f"settings.worker.in_flight={IN_FLIGHT_MAX}", "--set", f"settings.routing.open_deliveries_max={OPEN_MAX}")
# What a server answers, be it good or bad: the status, and the text.
ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def run(*command, timeout=120, text=None, check=True):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, input=text)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done


def kubectl(*arguments, **more):
    return run("kubectl", *arguments, **more).stdout


def get(kind, name=None, namespace=None, selector=None):
    arguments = ["get", kind, "-o", "json"]
    arguments += [name] if name else []
    arguments += ["-n", namespace] if namespace else []
    arguments += ["-l", selector] if selector else []
    answer = json.loads(kubectl(*arguments))
    return answer if name else answer["items"]


def eventually(what, seconds, ask):
    """Asks until the answer is true, and returns it. So many seconds are enough for a machine that does nothing
    else; a busy one gets more."""
    seconds *= 3
    until = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
        except AssertionError:
            pass
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.5)


@contextlib.contextmanager
def held(name, how):
    """A lock between the processes that run these tests (see `run`), shared or exclusive."""
    with open(LOGS / name, "a") as file:
        fcntl.flock(file, how)
        yield file


def turn(alone=False):
    """For what goes beside others, or for what takes something from all of them."""
    return held("turn", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)


def needs_own(what):
    """Ends a test that looks behind the API server, when the cluster is not one that tests/cluster/up brought up."""
    if not INSIDE:
        pytest.skip(f"needs a cluster of tests/cluster/up, on this machine, because it {what}; run it without KUBECONFIG")


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def restarts(pods):
    return sum(s["restartCount"] for pod in pods for s in pod["status"].get("containerStatuses", []))


class Logs:
    """Follows the log of every container of a namespace into a file of its own, until the pod is gone."""

    RUNNING = "custom-columns=:.metadata.name,:.status.containerStatuses[*].restartCount,:.status.containerStatuses[*].state.running.startedAt"

    def __init__(self, namespace):
        self.namespace, self.followed, self.processes = namespace, set(), []
        self.watch = self._start(subprocess.PIPE, "get", "pods", "--watch", "--no-headers", "-o", self.RUNNING)
        threading.Thread(target=self._follow_all, daemon=True).start()

    def _start(self, out, *arguments):
        process = subprocess.Popen(["kubectl", "-n", self.namespace, *arguments], stdout=out, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        return process

    def _follow_all(self):
        for line in self.watch.stdout:
            match line.split():
                case [pod, count, since] if since != "<none>" and (pod, count) not in self.followed:
                    self.followed.add((pod, count))
                    with open(LOGS / f"{self.namespace}.{pod}.{count}.log", "w") as file:
                        self._start(file, "logs", "--follow", pod)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Release:
    """The chart, installed in a namespace of its own that enforces restricted Pod Security."""

    def __init__(self, namespace, values, directory):
        self.namespace, self.values = namespace, HERE / values
        key, stanza = new_key()
        self.key_file = directory / "key"
        self.key_file.write_text(key)
        self.secrets = directory / "keys.yaml"
        self.secrets.write_text(yaml.safe_dump({"auth": {"keys": [stanza]}}))
        kubectl("apply", "-f", "-", text=yaml.safe_dump({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted"}}}))
        self.followed = Logs(namespace)

    def helm(self, *arguments, timeout=330, check=True):
        return run(TOOLS / "helm", *arguments, "-n", self.namespace, timeout=timeout, check=check)

    def _values(self, tag, more):
        return ("-f", self.values, "-f", self.secrets, "--set", f"image.tag={tag}", "--set", f"egress.allowNetworks={{{NODE}/32}}", *more)

    def install(self, tag=TAGS[0], *more, wait="300s", check=True):
        return self.helm("install", "fanfare", CHART, "--wait", "--timeout", wait, *self._values(tag, more), check=check)

    def install_or_upgrade(self, *more, wait="300s", check=True):
        waiting = ("--wait", "--timeout", wait) if wait else ()
        return self.helm("upgrade", "--install", "fanfare", CHART, *waiting, *self._values(TAGS[0], more), check=check)

    def upgrade(self, tag, *more):
        return self.helm("upgrade", "fanfare", CHART, "--wait", "--timeout", "300s", *self._values(tag, more))

    def pods(self, component=None):
        selector = "app.kubernetes.io/name=fanfare"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        return get("pods", namespace=self.namespace, selector=selector)

    def all_ready(self, component, count, tag=None):
        pods = self.pods(component)
        good = [p for p in pods if ready(p) and "deletionTimestamp" not in p["metadata"]
                and (tag is None or p["spec"]["containers"][0]["image"].endswith(f":{tag}"))]
        return len(pods) == len(good) == count and good

    def service(self):
        return f"http://{get('service', 'fanfare', self.namespace)['spec']['clusterIP']}:7400"

    def logs(self, pod, *more):
        return kubectl("logs", "-n", self.namespace, pod, *more)

    def ask(self, pod, path):
        """What the admin address of a pod answers: the status, and the text."""
        address = get("pod", pod, self.namespace)["status"].get("podIP", "")
        status, _, text = run(*INSIDE, "python3", "-c", ASK, f"http://{address}:7401{path}").stdout.partition(" ")
        return int(status), text.strip()

    def not_ready(self, pod, because):
        """Waits until a pod says that it is not ready, in a sentence that matches, and answers the sentence. It is
        alive meanwhile, and its log has the sentence, too."""
        def says():
            status, text = self.ask(pod, "/readyz")
            return status == 503 and re.search(because, text) and text

        said = eventually(f"{pod} says {because!r} on /readyz", 60, says)
        eventually(f"{pod} says {because!r} in its log", 10, lambda: re.search(because, self.logs(pod, "--since=10m")))
        assert self.ask(pod, "/livez")[0] == 200
        return re.search(rf".*(?:{because}).*", said)[0]

    def sigkill(self, pod):
        """Kills the container of a pod, as the kernel would."""
        needs_own("kills a container through its containerd")
        status = get("pod", pod, self.namespace)["status"]["containerStatuses"][0]
        container = status["containerID"].removeprefix("containerd://")
        run(HERE / "ctr", "task", "kill", "-s", "SIGKILL", container)

    @contextlib.contextmanager
    def available(self):
        """The fewest available replicas of each Deployment meanwhile, of every change that the API server tells."""
        columns = "custom-columns=:.metadata.name,:.status.availableReplicas"
        watch = subprocess.Popen(["kubectl", "-n", self.namespace, "get", "deployments", "--watch", "--no-headers", "-o", columns],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        fewest, changes = {}, []

        def follow():
            for line in watch.stdout:
                name, count = line.split()
                changes.append(line)
                count = 0 if count == "<none>" else int(count)
                fewest[name] = min(fewest.get(name, count), count)

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        try:
            eventually("the watch has begun", 10, lambda: fewest)
            before = len(changes)
            yield fewest
            assert watch.poll() is None and len(changes) > before, "the watch of the Deployments ended, or saw nothing"
        finally:
            watch.kill()
            watch.wait()
            following.join()

    @contextlib.contextmanager
    def load(self, *more, rate=RATE):
        """Publishes meanwhile; the result of `Load.stop` says what was lost or repeated."""
        load = Load(self, rate, more)
        try:
            yield load
        finally:
            load.process.kill()
            load.process.wait()

    def memory(self):
        """The most memory that a pod works with, in MiB and in percent of its limit, by component."""
        needs_own("reads how much memory pods work with from their control groups")
        largest = {}
        for pod in self.pods():
            limit = int(pod["spec"]["containers"][0]["resources"]["limits"]["memory"].removesuffix("Mi"))
            component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
            used = working_set(pod["metadata"]["uid"]) / (1 << 20)
            largest[component] = max(largest.get(component, (0, 0)), (used, 100 * used / limit))
        return largest

    def memory_meanwhile(self, seconds):
        """The same, at its largest within so many seconds."""
        largest, until = {}, time.monotonic() + seconds
        while time.monotonic() < until:
            for component, used in self.memory().items():
                largest[component] = max(largest.get(component, (0, 0)), used)
            time.sleep(2)
        return largest

    def gone(self):
        self.helm("uninstall", "fanfare", "--wait", "--timeout", "120s", check=False)
        kubectl("delete", "namespace", self.namespace, "--wait=true", "--timeout=120s", timeout=150)
        self.followed.end()


def working_set(uid):
    """Bytes that a pod holds and that cannot be dropped, as the kubelet counts them."""
    found = list(pathlib.Path("/sys/fs/cgroup/memory").glob(f"fanfare-cluster-*/kubepods/**/pod{uid}"))
    assert len(found) == 1, f"{len(found)} control groups of pod {uid}"
    stat = dict(line.split() for line in (found[0] / "memory.stat").read_text().splitlines())
    return int((found[0] / "memory.usage_in_bytes").read_text()) - int(stat["total_inactive_file"])


def node():
    return get("nodes")[0]["metadata"]["name"]


def both_ready(release, routers=2, workers=2, tag=None):
    return release.all_ready("router", routers, tag) and release.all_ready("worker", workers, tag)


def settled(release, routers=2, workers=2, seconds=120):
    eventually("all pods ready", seconds, lambda: both_ready(release, routers, workers))


def drain(components, *more, check=True):
    """Evicts the pods of some components of the chart from the node."""
    if len(get("nodes")) > 1:
        pytest.skip("needs a cluster of one node, because it drains that and nothing else may take the pods")
    return run("kubectl", "drain", node(), f"--pod-selector=app.kubernetes.io/component in ({components})", "--delete-emptydir-data", *more, check=check)


def new_key():
    done = run(FANFARE, "key", "new", "ledger", "--all-tenants")
    lines = (done.stdout + "\n" + done.stderr).splitlines()
    key = next(line for line in lines if line.startswith("ffk_"))
    digest = next(line for line in lines if line.startswith("sha256")).split('"')[1]
    return key, {"name": "ledger", "allTenants": True, "sha256": digest}


class Load:
    def __init__(self, release, rate, more):
        command = [*INSIDE, "python3", HERE / "ledger.py", "--server", release.service(), "--listen",
                   NODE, "--fanfare", FANFARE, "--key-file", release.key_file, "--rate", rate,
                   "--try-timeout", TRY_TIMEOUT, "--give-up-after", GIVE_UP_AFTER, *more]
        self.namespace = release.namespace
        self.restarted = self._restarted()
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        assert line, "the ledger ended"
        return json.loads(line)

    def mark(self):
        self.process.stdin.write("mark\n")
        self.process.stdin.flush()
        return self._answer()

    def passes(self, events, seconds=60):
        """Waits until so many more events were accepted and delivered."""
        goal = self.mark()["accepted"] + events

        def further():
            now = self.mark()
            return now["accepted"] >= goal and now["arrived"] >= now["owed"] - 3 * RATE

        eventually(f"{events} more events", seconds, further)

    def _restarted(self):
        """Containers that are not a pod's first: a crash may repeat something."""
        return {file.stem for file in LOGS.glob(f"{self.namespace}.*.log") if not file.stem.endswith(".0")}

    def stop(self):
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        result = self._answer()
        result["restarted"] = sorted(self._restarted() - self.restarted)
        repeats = result.pop("repeats")
        if repeats:
            (LOGS / f"repeats.{self.process.pid}.json").write_text(json.dumps({**result, "repeats": repeats}, indent=1))
        return result


def figures(result):
    text = (f"{result['accepted']} events, {result['owed']} deliveries: lost {result['lost']}, "
            f"repeated {result['repeated']}; publishes repeated {result['repeated_calls']}, longest {result['longest_s']:.1f} s")
    return text + (f", given up {result['given_up']}" if result["given_up"] else "")


def nothing_lost(result, repeated=0):
    """And nothing invented or damaged; no producer would have been told that a publish failed; and no more came twice
    than that many deliveries, which is more than none only where something was killed or went away."""
    said = json.dumps(result)
    assert result["accepted"] > 50, said
    assert result["lost"] == result["phantom"] == result["wrong"] == 0, said
    assert result["given_up"] == 0 and result["longest_s"] <= result["give_up_after_s"], said
    assert result["repeated"] <= repeated, said
    assert repeated or not result["restarted"], said
