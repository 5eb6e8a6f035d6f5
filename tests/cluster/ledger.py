"""ledger.py: a producer that publishes until it is told to stop, and subscribers that count what comes.

It knows every event that was accepted, and so what was lost or came twice (book.py). Lines on standard input
are commands: `mark` says how far it is, `stop` ends the publishing, waits for what is owed and says the
result, each as one line of JSON. It sends as the Rust client does (proto/src/client/retry.rs): a try has so
long, what the server or the transport says a retry can help with is sent again, with the same id, and after
so long no further try begins: a publish has then failed, and is counted as `given_up`."""

import argparse
import asyncio
import base64
import collections
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from book import Book

parser = argparse.ArgumentParser()
parser.add_argument("--server", required=True)
parser.add_argument("--listen", required=True, help="an address that the pods reach")
parser.add_argument("--fanfare", required=True, help="the program")
parser.add_argument("--key-file", required=True)
parser.add_argument("--rate", type=float, default=60, help="events a second")
parser.add_argument("--endpoints", type=int, default=3)
parser.add_argument("--slow", action="store_true", help="one endpoint more, which takes 20 s to answer")
parser.add_argument("--try-timeout", type=float, required=True, help="seconds that a try may take")
parser.add_argument("--give-up-after", type=float, required=True, help="seconds after which a publish has failed")
parser.add_argument("--settle", type=float, default=120, help="seconds that what is owed may take")
given = parser.parse_args()

HOST, PORT = given.server.removeprefix("http://").rsplit(":", 1)
KEY = open(given.key_file).read().strip()
RUN = f"r{os.getpid()}x{int(time.time())}"
SECRET = os.urandom(32)
SLOW_SECONDS = 20
# Between two tries: the first, which doubles, and the longest, with full jitter, beyond what the server asks for.
PAUSE_MIN, PAUSE_MAX = 0.05, 5

book = Book(SECRET)
arrivals = collections.defaultdict(list)  # (path, id of an event) -> when it came, and under which id
publishing = {"calls": 0, "repeated_calls": 0, "refused": collections.Counter(), "given_up": 0, "longest_s": 0.0}
stopping = asyncio.Event()


async def read_message(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        if line:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
    return head[0], headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def subscriber(reader, writer):
    try:
        while True:
            request, headers, body = await read_message(reader)
            path = request.split()[1]
            book.arrive(path, headers, body)
            now = datetime.datetime.now(datetime.timezone.utc).isoformat()
            arrivals[path, headers.get("ce-id", "")].append((now, headers.get("webhook-id", "")))
            if path.endswith("/slow"):
                await asyncio.sleep(SLOW_SECONDS)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class Producer:
    """One connection, one call at a time."""

    def __init__(self):
        self.writer = None

    async def once(self, event, kind, body):
        """One try: None when it is accepted, else what was said, and how long to wait; None: no retry helps."""
        publishing["calls"] += 1
        try:
            async with asyncio.timeout(given.try_timeout):
                if self.writer is None:
                    self.reader, self.writer = await asyncio.open_connection(HOST, int(PORT))
                head = (
                    f"POST /v1/events HTTP/1.1\r\nhost: {HOST}:{PORT}\r\ncontent-type: application/json\r\n"
                    f"authorization: Bearer {KEY}\r\nce-specversion: 1.0\r\nce-id: {event}\r\nce-source: /ledger\r\n"
                    f"ce-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
                )
                self.writer.write(head.encode() + body)
                status, headers, answer = await read_message(self.reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.drop()
            return type(error).__name__, 0
        if headers.get("connection", "").lower() == "close":
            self.drop()
        code = int(status.split()[1])
        if code < 300:
            return None
        self.drop()
        asked = headers.get("retry-after")
        return f"{code} {answer[:120].decode('utf-8', 'replace')}", asked and float(asked)

    def drop(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    async def publish(self, event, kind, paths):
        body = json.dumps({"id": event, "padding": "x" * 200}).encode()
        book.publish(event, body, paths)
        began, most = time.monotonic(), PAUSE_MIN
        while refusal := await self.once(event, kind, body):
            said, asked = refusal
            publishing["refused"][said] += 1
            pause = (asked or 0) + random.uniform(0, most)
            most = min(2 * most, PAUSE_MAX)
            if asked is None or time.monotonic() - began + pause >= given.give_up_after:
                publishing["given_up"] += 1
                return
            publishing["repeated_calls"] += 1
            await asyncio.sleep(pause)
        book.accepted.add(event)
        publishing["longest_s"] = max(publishing["longest_s"], time.monotonic() - began)


async def produce(number, producers, paths):
    producer, count, next_at = Producer(), 0, time.monotonic()
    while not stopping.is_set():
        count += 1
        await producer.publish(f"{RUN}-{number}-{count}", f"{RUN}.load.{count % 3}", paths)
        # What an outage held up is not made up for.
        next_at = max(next_at + producers / given.rate, time.monotonic() - 1)
        await asyncio.sleep(max(0, next_at - time.monotonic()))
    producer.drop()


async def produce_slow(path):
    producer, count = Producer(), 0
    while not stopping.is_set():
        count += 1
        await producer.publish(f"{RUN}-slow-{count}", f"{RUN}.slow", [path])
        await asyncio.sleep(2)  # as many as an endpoint may have in flight
    producer.drop()


def create(url, pattern, secret_file, *more):
    command = [given.fanfare, "endpoint", "create", url, "--event-type", pattern,
               "--secret-file", secret_file, "--server", given.server, "--api-key-file", given.key_file,
               "--retry-schedule", "1s,2s,5s,10s,10s,10s,10s,10s,10s,10s", "-o", "json", *more]
    for attempt in range(10):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode == 0:
            return json.loads(made.stdout.splitlines()[0])
        time.sleep(1)
    sys.exit(f"no endpoint: {made.stderr}")


def result():
    return {**book.verdict(), **publishing, "give_up_after_s": given.give_up_after}


def repeats():
    """What came more than once, and when, to be looked for in the logs of the pods."""
    return {" ".join(key): times for key, times in arrivals.items() if len(times) > 1}


def say(what):
    print(json.dumps(what), flush=True)


async def main():
    server = await asyncio.start_server(subscriber, given.listen, 0, backlog=512)
    host, port = server.sockets[0].getsockname()
    at = f"http://{host}:{port}"
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("whsec_" + base64.b64encode(SECRET).decode())
        secret.flush()
        paths = [f"/{RUN}/{number}" for number in range(given.endpoints)]
        for path in paths:
            await asyncio.to_thread(create, at + path, f"{RUN}.load.*", secret.name)
        tasks = [produce(number, 6, paths) for number in range(6)]
        if given.slow:
            slow = f"/{RUN}/slow"
            await asyncio.to_thread(create, at + slow, f"{RUN}.slow", secret.name, "--timeout", "30s")
            tasks.append(produce_slow(slow))
    tasks = [asyncio.create_task(task) for task in tasks]
    say({"listening": at})
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while (command := await commands.readline()) and command.strip() != b"stop":
        say(result())
    stopping.set()
    await asyncio.gather(*tasks)
    stopped = time.monotonic()
    while book.missing() and time.monotonic() - stopped < given.settle:
        await asyncio.sleep(0.5)
    settled = time.monotonic() - stopped
    # What comes twice comes a little later.
    await asyncio.sleep(SLOW_SECONDS + 5 if given.slow else 3)
    say({**result(), "settled_s": round(settled, 1), "repeats": repeats()})
    server.close()
    os._exit(0)


asyncio.run(main())
