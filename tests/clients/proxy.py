#!/usr/bin/env python3
"""The nginx settings of docs/server.md in front of a server, with a certificate of our own making: proxy.py

Environment: FACET_URL, a server that runs one text at a time, sends a comment on a silent stream every second, and whose
buffers are small, so that a client that does not read stops its text. Needs nginx and openssl."""
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

SERVER = urllib.parse.urlsplit(os.environ["FACET_URL"]).netloc
DOC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/server.md")
NAME = "llm.example.org"
QUESTION = {"messages": [{"role": "user", "content": "What is 82 - 61?"}], "temperature": 0}
ENDLESS = {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True, "ignore_eos": True}


def settings(folder, port):
    """What the document says, with our addresses and files, and what nginx wants around it."""
    with open(DOC, encoding="utf-8") as f:
        block = re.search(r"^With nginx:\n\n((?:    .*\n)+)", f.read(), re.M)[1]
    for there, here in (("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"), ("/etc/ssl/llm.", folder + "/llm."),
                        ("http://127.0.0.1:8080", "http://" + SERVER)):
        assert there in block, there
        block = block.replace(there, here)
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"{user}daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{block}}}\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Nginx:
    def __init__(self, folder):
        self.port = free_port()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                        "-subj", "/CN=" + NAME, "-addext", "subjectAltName=DNS:" + NAME,
                        "-keyout", folder + "/llm.key", "-out", folder + "/llm.pem"], check=True, capture_output=True)
        with open(folder + "/nginx.conf", "w", encoding="utf-8") as f:
            f.write(settings(folder, self.port))
        self.process = subprocess.Popen(["nginx", "-p", folder, "-c", folder + "/nginx.conf", "-e", folder + "/error.log"])
        self.context = ssl.create_default_context(cafile=folder + "/llm.pem")
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, "nginx ended"
                time.sleep(0.05)
        raise AssertionError("nginx does not listen")

    def close(self):
        self.process.terminate()
        self.process.wait()

    def socket(self):
        return self.context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 120), server_hostname=NAME)


def connection(sock):
    c = http.client.HTTPConnection(NAME)
    c.sock = sock
    return c


def direct():
    return connection(socket.create_connection(SERVER.split(":"), 120))


def ask(c, path, body=None):
    c.request("POST" if body else "GET", path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    return c.getresponse()


def running():
    page = ask(direct(), "/metrics").read().decode()
    return tuple(int(re.search(rf"^facet_texts_{state} (\d+)", page, re.M)[1]) for state in ("running", "waiting"))


def wait_for(state):
    for _ in range(1200):
        if running() == state:
            return
        time.sleep(0.05)
    raise AssertionError(f"texts that run and wait: {running()}, wanted {state}")


def stream(reply):
    """Text of a streamed answer; it must end as it should."""
    text = ""
    for line in reply:
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
        elif line.startswith(b"data: [DONE]"):
            return text
    raise AssertionError("a stream without its end")


def plain_and_large(nginx):
    c = connection(nginx.socket())
    assert json.load(ask(c, "/health")) == {"status": "ok"}
    answer = json.load(ask(c, "/v1/chat/completions", QUESTION))["choices"][0]["message"]["content"]
    assert answer == "82 - 61 = 21.", answer
    text = "a b " * (1 << 19)  # 2 MiB, more than nginx takes by itself
    tokens = json.load(ask(c, "/tokenize", {"content": text}))["tokens"]
    assert tokens == json.load(ask(direct(), "/tokenize", {"content": text}))["tokens"]
    reply = ask(c, "/v1/chat/completions", {"messages": []})
    assert reply.status == 400 and json.load(reply)["error"]["param"] == "messages"


def streams_are_not_held_up(nginx):
    """A text waits for one that makes no way; the comments that its stream gets meanwhile come through."""
    blocker = socket.socket()
    blocker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = SERVER.split(":")
    blocker.connect((host, int(port)))
    connection(blocker).request("POST", "/v1/chat/completions", json.dumps(ENDLESS))
    wait_for((1, 0))
    reply = ask(connection(nginx.socket()), "/v1/chat/completions", {**QUESTION, "stream": True})
    assert reply.status == 200 and reply.getheader("Content-Type") == "text/event-stream"
    assert reply.readline() == b": ping\n"
    assert running() == (1, 1), running()
    blocker.close()
    assert stream(reply) == "82 - 61 = 21."


def a_client_that_goes_ends_its_text(nginx):
    c = connection(nginx.socket())
    reply = ask(c, "/v1/chat/completions", ENDLESS)
    assert reply.readline().startswith(b"data: ")
    assert running() == (1, 0)
    reply.close()
    c.close()
    wait_for((0, 0))


def main():
    with tempfile.TemporaryDirectory() as folder:
        nginx = Nginx(folder)
        try:
            for check in (plain_and_large, streams_are_not_held_up, a_client_that_goes_ends_its_text):
                check(nginx)
        finally:
            nginx.close()


main()
