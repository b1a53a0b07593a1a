"""A small https server on this machine, with a certificate of its own authority: what the tests fetch from."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

HOST = "media.example.org"


class Site:
    """`pages`: path -> (status, headers, body), or a function that writes to the handler. `asked`: (Host header, path) of each request."""

    def __init__(self, authority: Path, port: int) -> None:
        self.authority, self.port = authority, port
        self.pages: dict[str, tuple[int, dict[str, str], bytes] | Callable] = {}
        self.asked: list[tuple[str, str]] = []

    def url(self, path: str, host: str = HOST) -> str:
        """The https URL of a page."""
        return f"https://{host}:{self.port}{path}"

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Put a page up; returns its URL."""
        self.pages[path] = (status, {"Content-Length": str(len(body)), **headers}, body)
        return self.url(path)

    def drip(self, path: str, pause_s: float, before: bytes = b"") -> str:
        """A page that sends a byte at a time and never ends; `before`: what is sent at once, in place of a proper head."""

        def write(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(before or b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(10_000):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(pause_s)

        self.pages[path] = write
        return self.url(path)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """The server, running; its certificate is for `media.example.org`, what lies below it, and `other.example.net`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, f"*.{HOST}", "other.example.net").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.headers["Host"], self.path))
            page = made.pages.get(self.path, (404, {"Content-Length": "0"}, b""))
            try:
                if not isinstance(page, tuple):
                    page(self)
                    return
                self.send_response(page[0])
                for name, value in page[1].items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(page[2])
            except OSError:  # the other side has hung up, as it should
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made = Site(folder / "authority.pem", server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
