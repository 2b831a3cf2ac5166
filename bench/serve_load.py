#!/usr/bin/env python3
"""Load for `facet serve`: streaming clients, idle and slow connections, clients that go in the middle of an answer.

    bench/serve_load.py [--facet build/facet] [--seconds 60] [--clients 64] [--idle 500] [--slow 500] [-- OPTIONS OF facet serve]

Starts a server on a free port of loopback, asks each question once by itself, then has the clients ask at random. Every
answer must equal the one that was given alone (temperature 0). Memory and descriptors of the server are looked at all the
while: in runs of a minute and more resident memory may not grow by more than 2 MB from the middle third of the time to the
last, and no connection may be left behind. Prints one JSON object; exits with 1 when something was wrong. Needs nothing but Python."""
import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import time

QUESTIONS = ["What is 82 - 61?", "Tell me the capital of Morocco.", "Which month comes after June?", "Tell me a story.",
             "What is 17 + 25?", "What is the weather in Rome?", "Count from 3 to 9.", "What is 5 + 5?"]

SETTLED_S = 60  # before, the caches fill


class Refused(Exception):
    """The server said so: 429 or 503 with Retry-After."""


async def request(port, body, abort_after=None):
    """Text of a streamed answer and the times of its pieces; None when it was aborted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        begun = time.monotonic()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data) + data)
        status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        if status == 429:
            raise Refused
        if status != 200:
            raise RuntimeError(f"status {status}: {(await reader.read())[:200]!r}")
        text, times, finish, done = [], [], None, False
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    piece = choice["delta"].get("content")
                    finish = choice["finish_reason"] or finish
                    if piece:
                        text.append(piece)
                        times.append(time.monotonic() - begun)
            if abort_after is not None and len(times) > abort_after:
                return None
        if not done or not finish:
            raise RuntimeError("a stream ended without its end")
        return "".join(text), times
    finally:
        writer.close()


def ask(question, max_tokens):
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": max_tokens,
            "stream": True, "ignore_eos": True}


class Load:
    def __init__(self, args, port, pid):
        self.args, self.port, self.pid = args, port, pid
        self.random = random.Random(1)
        self.expected, self.first, self.gaps, self.wrong = {}, [], [], []
        self.n = {"answers": 0, "aborted": 0, "refused": 0, "idle": 0, "slow": 0, "closed": 0}
        self.memory, self.files = [], []
        self.until = 0

    async def client(self):
        while time.monotonic() < self.until:
            question = self.random.choice(QUESTIONS)
            length = self.random.choice((8, 32, 96))
            abort = self.random.randrange(length) if self.random.random() < self.args.abort else None
            try:
                answer = await request(self.port, ask(question, length), abort)
            except Refused:
                self.n["refused"] += 1
                await asyncio.sleep(0.2)
                continue
            except (RuntimeError, OSError, IndexError, ValueError) as e:
                self.wrong.append(f"{question}: {type(e).__name__}: {e}")
                continue
            if answer is None:
                self.n["aborted"] += 1
                continue
            text, times = answer
            self.n["answers"] += 1
            self.first.append(times[0] if times else 0)
            self.gaps += [b - a for a, b in zip(times, times[1:])]
            if text != self.expected[question, length]:
                self.wrong.append(f"{question} ({length}): {text!r}, alone: {self.expected[question, length]!r}")

    async def idle(self, kind):
        """A connection that sends nothing, or a header byte by byte; opened again when the server has closed it."""
        while time.monotonic() < self.until:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as e:
                self.wrong.append(f"{kind}: {e}")
                return
            self.n[kind] += 1
            if kind == "slow":
                writer.write(b"GET /health HTTP/1.1\r\n")
            while time.monotonic() < self.until:
                try:
                    if not await asyncio.wait_for(reader.read(1024), self.random.uniform(1, 3)):
                        break
                except asyncio.TimeoutError:
                    if kind == "slow":
                        writer.write(b"X")
                except OSError:
                    break
            self.n["closed"] += 1
            writer.close()

    async def look(self):
        while time.monotonic() < self.until:
            with open(f"/proc/{self.pid}/status") as f:
                self.memory.append(int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024)
            self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))
            await asyncio.sleep(1)

    async def metrics(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        return page

    async def run(self):
        self.files_before = len(os.listdir(f"/proc/{self.pid}/fd"))
        for question in QUESTIONS:
            for length in (8, 32, 96):
                self.expected[question, length] = (await request(self.port, ask(question, length)))[0]
        self.until = time.monotonic() + self.args.seconds
        await asyncio.gather(self.look(), *(self.client() for _ in range(self.args.clients)),
                             *(self.idle("idle") for _ in range(self.args.idle)),
                             *(self.idle("slow") for _ in range(self.args.slow)))
        for _ in range(30):
            files = len(os.listdir(f"/proc/{self.pid}/fd"))
            if files <= self.files_before:
                break
            await asyncio.sleep(1)
        return self.report(files, await self.metrics())

    def report(self, files, metrics):
        def at(values, share):
            return round(sorted(values)[int(share * (len(values) - 1))] * 1000, 1) if values else None

        def metric(name):
            return float(re.search(rf"^facet_{name} (\S+)", metrics, re.M)[1])
        third = len(self.memory) // 3
        middle, end = self.memory[third:2 * third], self.memory[2 * third:]
        return {"seconds": self.args.seconds, "clients": self.args.clients, **self.n, "wrong": len(self.wrong),
                "examples": self.wrong[:5], "tokens_per_s": round(metric("generated_tokens_total") / self.args.seconds, 1),
                "first_token_ms": {"p50": at(self.first, .5), "p95": at(self.first, .95), "p99": at(self.first, .99)},
                "between_tokens_ms": {"p50": at(self.gaps, .5), "p95": at(self.gaps, .95), "p99": at(self.gaps, .99)},
                "rss_mb": {"max": round(max(self.memory) / 1e6, 1), "middle": round(sum(middle) / max(third, 1) / 1e6, 1),
                           "end": round(sum(end) / len(end) / 1e6, 1),
                           "tenths": [round(self.memory[i * len(self.memory) // 10] / 1e6, 1) for i in range(10)]},
                "descriptors": {"before": self.files_before, "max": max(self.files), "after": files},
                "running_after": metric("texts_running"), "waiting_after": metric("texts_waiting")}


async def start(args, options):
    process = await asyncio.create_subprocess_exec(
        args.facet, "serve", "--port", "0", "--log", "none", "--parallel", "64", "--queue", "256", *options,
        stderr=asyncio.subprocess.PIPE)
    while line := await process.stderr.readline():
        if found := re.search(rb"http://[^:]+:(\d+)", line):
            return process, int(found[1])
    sys.exit("the server did not start")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facet", default="build/facet")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--idle", type=int, default=500)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--abort", type=float, default=0.1, help="share of answers that are broken off")
    parser.add_argument("options", nargs="*", help="of facet serve, behind --")
    args = parser.parse_args()
    process, port = await start(args, args.options)
    try:
        report = await Load(args, port, process.pid).run()
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    report["exit_status"] = process.returncode
    print(json.dumps(report, indent=2))
    grown = args.seconds >= SETTLED_S and report["rss_mb"]["end"] - report["rss_mb"]["middle"] > 2
    left = report["descriptors"]["after"] > report["descriptors"]["before"]
    bad = report["wrong"] or report["running_after"] or report["waiting_after"] or process.returncode or grown or left
    bad = bad or report["answers"] == 0
    sys.exit(1 if bad else 0)


asyncio.run(main())
