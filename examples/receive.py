"""Receives webhooks and verifies each with the official library.

pip install standardwebhooks
python receive.py SECRET_FILE [PORT]
"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

secret_file, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3000
webhook = Webhook(Path(secret_file).read_text().strip())


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")  # one write: threads do not mix lines
    sys.stdout.flush()


class Receive(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            webhook.verify(body, dict(self.headers))
            # The same id means the same delivery: remember it if handling it twice would hurt.
            say("verified", self.headers["webhook-id"], self.headers["ce-type"], len(body))
            self.send_response(204)
        except WebhookVerificationError as error:
            say("refused", error)
            self.send_response(400)
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Receive)
say("listening on", server.server_port)
server.serve_forever()
