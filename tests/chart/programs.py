"""The real programs, started as the pods start them, but on ports of this machine."""

import contextlib
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import chart

SOON = 30


def listens_on(pid):
    """Ports that a process listens on, from what the kernel says."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [
        row.split() for row in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    ]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def ask(port, path, timeout=5):
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def eventually(what, attempt):
    """Tries until `attempt` answers something true; says what it answered last."""
    end = time.monotonic() + SOON
    while True:
        last = attempt()
        if last:
            return last
        assert time.monotonic() < end, f"{what}: {last!r}"
        time.sleep(0.05)


@contextlib.contextmanager
def started(command, env):
    """A program; it is ended at the end, and waited for."""
    program = str(pathlib.Path(chart.FANFARE).with_name(command[0]))
    # It goes with the tests even if these are killed.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", program, *command[1:]],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
