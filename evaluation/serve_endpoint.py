"""A published checkpoint's `handler.py` behind a small HTTP server, as an Inference Endpoint starts it.

    python evaluation/serve_endpoint.py FOLDER [--port N]

Needs nothing but the standard library and what the folder's requirements.txt names; the package is hidden from the
handler. A POST of JSON is the request itself, any other content its `inputs`; the answer is JSON.
"""

import argparse
import importlib.util
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_BODY_BYTES = 64_000_000  # larger requests are not read


def load_handler(folder: Path) -> Any:
    """The folder's `EndpointHandler`, without the installed package."""
    sys.modules["modeling_pianobind"] = None
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


class Requests(BaseHTTPRequestHandler):
    """Hands each request to `handler`, a class attribute."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            return self.reply(413, {"error": f"the request has more than {MAX_BODY_BYTES} bytes."})
        body = self.rfile.read(length)
        if self.headers.get("Content-Type") != "application/json":
            return self.reply(200, self.handler({"inputs": body}))
        try:
            request = json.loads(body)
        except ValueError as error:
            return self.reply(400, {"error": f"the request is not JSON: {error}"})
        return self.reply(200, self.handler(request))

    def reply(self, status: int, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections that arrive at one moment; more are refused by the system


def main() -> None:
    """Serves until it is stopped; the first line on stdout is the port."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `python -m training.publish CHECKPOINT` writes")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    given = parser.parse_args()
    Requests.handler = staticmethod(load_handler(given.folder))
    server = Server(("127.0.0.1", given.port), Requests)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
