"""The controllers that the guests of `guests.py` talk to: they record what they are told, and answer as badly as they are asked to.

One is of plain HTTP and gives a file; `Exchange` speaks TLS, with a certificate of its own, and says who a system is. Nothing here decides what is
right.
"""
import hashlib
import http.server
import json
import os
import socketserver
import ssl
import subprocess
import threading
import time

MAC = "52:54:00:12:34:56"  # of the card that a guest boots over
HOST = "10.0.2.2"  # as QEMU's user network calls the machine that it runs on
# With EMBODY_TAP=tap0 guests are on that interface instead, which has the address HOST, and on which a DHCP server answers that is none of QEMU's.
TAP = os.environ.get("EMBODY_TAP")


class Controller(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Records what it is told, and gives one file, as badly as it is asked to."""

    daemon_threads = True

    def __init__(self, content=b"", statuses=None, break_after=None):
        super().__init__((HOST if TAP else "127.0.0.1", 0), Answer)
        self.content, self.statuses, self.break_after = content, statuses or {}, break_after
        self.told, self.ranges, self.begun = [], [], time.monotonic()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def base(self):
        return f"http://{HOST}:{self.server_port}"

    def words(self, what):
        return [body for (path, body, _) in self.told if path.endswith(what)]

    def when(self, what):
        return next((at for (path, _, at) in self.told if path.endswith(what)), None)


class Exchange(Controller):
    """As a controller over TLS, that also says who a system is."""

    def __init__(self, directory, identity, statuses=None):
        self.identity = identity
        key, certificate = f"{directory}/key.pem", f"{directory}/certificate.pem"
        make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=nobody", "-keyout", key, "-out", certificate]
        subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
        public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True, stdout=subprocess.PIPE).stdout
        self.sha256 = hashlib.sha256(public).hexdigest()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        super().__init__(statuses=statuses)

    def get_request(self):
        # Whoever ends the handshake is an OSError, which the server passes over.
        stream, at = super().get_request()
        stream.settimeout(20)
        return self.context.wrap_socket(stream, server_side=True), at

    def parameter(self, sha256=None):
        return f"embody.exchange=https://{HOST}:{self.server_port}/run/web-1/TOKEN,sha256={sha256 or self.sha256}"

    def said(self, what):
        return [json.loads(body) for body in self.words(what)]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        server = self.server
        server.told.append((self.path, body, time.monotonic() - server.begun))
        what = self.path.rsplit("/", 1)[1]
        statuses = server.statuses.get(what, [])
        status = statuses.pop(0) if statuses else 204
        answer = b""
        if what == "identity" and status == 204:
            status, answer = 200, json.dumps(server.identity | {"time_ms": round(time.time() * 1000)}).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self):
        content, begin = self.server.content, 0
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path != "/root.squashfs":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if asked:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = len(content)
        if self.server.break_after:
            end = min(end, begin + self.server.break_after)
        self.wfile.write(content[begin:end])
        if end < len(content):
            self.close_connection = True


def identity():
    """As a controller says it of a persona with a link of its own and a VLAN on the card of the root."""
    front = {"addresses": ["10.1.20.21/24"], "gateway": "10.1.20.1", "metric": 50}
    backup = {"vlan": 40, "network": "backup", "addressing": {"addresses": ["10.1.40.21/24"]}}
    return {
        "hostname": "web-9",
        "machine_id": "9" * 32,
        "links": [
            {"name": "san", "macs": [MAC], "boot": True, "vlans": [backup]},
            {"name": "front", "macs": ["52:54:00:00:00:00"], "untagged": front},
            {"name": "none", "macs": ["52:54:00:00:00:01"]},
        ],
        "files": [
            {"path": "/etc/app.conf", "content": "as-given", "mode": 0o640, "owner": "www-data", "group": "adm"},
            {"path": "/home/w/.ssh/authorized_keys", "content": "ssh-ed25519 A", "mode": 0o600, "owner": "www-data"},
        ],
    }


def links():
    """As `identity`, with a VLAN on a card of its own and a bond."""

    def tagged(vlan, name, address):
        return {"vlan": vlan, "network": name, "addressing": {"addresses": [address], "mtu": 1400}}

    san, front, none = identity()["links"]
    san = san | {"untagged": {"addresses": ["10.0.2.15/24", "10.0.9.1/24"], "mtu": 1450}}
    front = front | {"vlans": [tagged(30, "storage", "10.1.30.21/24")]}
    up = {"name": "up", "bond": True, "macs": ["52:54:00:00:00:02", "52:54:00:00:00:01"], "untagged": {"addresses": ["10.1.50.21/24"]}}
    return [san, front, up | {"vlans": [tagged(5, "web", "10.1.5.21/24")]}, none | {"macs": ["52:54:00:00:00:03"]}]
