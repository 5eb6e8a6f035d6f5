"""book.py: what a producer was told against what its subscribers saw. Pure, so that it is tested like any
function; the words are those of tests/src/ledger.

LOST: accepted, and a subscriber that it is owed to did not get it. PHANTOM: a subscriber got what was never
published, or not to it. WRONG: the signature, the body or the webhook-id is not the one it should be."""

import base64
import collections
import hashlib
import hmac

EXAMPLES = 5


class Book:
    def __init__(self, secret):
        self.secret = secret
        self.sent = {}  # id of an event -> the hash of its body, and the paths that it is owed to
        self.accepted = set()
        self.posts = collections.Counter()  # (path, id of an event) -> how often it came
        self.names = {}  # the same -> the webhook-id under which it came first
        self.named = {}  # webhook-id -> what came under it first
        self.phantom, self.wrong = [], []

    def publish(self, event, body, paths):
        """Noted before the first try: whatever becomes of it, it may arrive."""
        self.sent[event] = (hashlib.sha256(body).digest(), paths)

    def arrive(self, path, headers, body):
        event, name = headers.get("ce-id", ""), headers.get("webhook-id", "")
        what = (path, event)
        self.posts[what] += 1
        digest, paths = self.sent.get(event, (None, ()))
        if path not in paths:
            self.phantom.append(f"{path} {event}: {'not wanted' if digest else 'never published'}")
        elif hashlib.sha256(body).digest() != digest:
            self.wrong.append(f"{path} {event}: the body is not what was published")
        if not self._verified(headers, body):
            self.wrong.append(f"{path} {event}: the signature is wrong")
        if self.names.setdefault(what, name) != name:
            self.wrong.append(f"{path} {event}: it came as {self.names[what]} before, and now as {name}")
        if self.named.setdefault(name, what) != what:
            self.wrong.append(f"{path} {event}: {name} is also {' '.join(self.named[name])}")

    def _verified(self, headers, body):
        signed = b".".join([headers.get("webhook-id", "").encode(), headers.get("webhook-timestamp", "").encode(), body])
        wanted = "v1," + base64.b64encode(hmac.new(self.secret, signed, hashlib.sha256).digest()).decode()
        return wanted in headers.get("webhook-signature", "").split()

    def missing(self):
        return [(path, event) for event in self.accepted for path in self.sent[event][1] if not self.posts[path, event]]

    def verdict(self):
        missing = self.missing()
        return {
            "accepted": len(self.accepted),
            "owed": sum(len(self.sent[event][1]) for event in self.accepted),
            "arrived": len(self.posts),
            "lost": len(missing),
            "phantom": len(self.phantom),
            "wrong": len(self.wrong),
            "repeated": sum(self.posts.values()) - len(self.posts),
            "repeated_at": collections.Counter(path for (path, _), times in self.posts.items() if times > 1),
            "examples": missing[:EXAMPLES] + self.phantom[:EXAMPLES] + self.wrong[:EXAMPLES],
        }
