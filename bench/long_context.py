#!/usr/bin/env python3
"""The tables of docs/long-context.md: what each setting of the KV cache takes, and what it costs in quality.

    bench/long_context.py [--facet build/facet] [--shared ../shared] [--only bytes,kl,passkey,needle] [--models A,B]
                          [--settings NAME,..] [--longest N] [--seconds N] [--threads N] [--print]

Every figure is measured once and kept in bench/long_context.json under what it was measured with, so that a run which was
cut short, or one with a new line in SETTINGS, measures only what is missing; --seconds ends a run after the figure at
hand, --longest leaves longer contexts of `kl` out. Then the tables are written between the markers of the document. --print writes the tables of what there is, and
measures nothing. What is measured:

    bytes     `facet inspect --ctx` on files of the public sizes without weights (`facet quantize --random SIZE --hollow`)
    kl        `facet eval kl` against f16 on 4,096 and 16,384 tokens: of the reference set's texts, and of other sentences
    passkey   `facet eval tasks` on the reference set's passkey.jsonl, counted by length
    needle    `facet eval needle` at 2k, 4k, 8k and 16k, five depths

Needs nothing but Python. Times are not measured: other work on the machine changes nothing but the duration."""
import argparse
import itertools
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time

# Name in the tables, options of facet. Presets are recognised by the types that they stand for.
SETTINGS = [
    ("f32", "-ctk f32 -ctv f32"),
    ("f16", "-ctk f16 -ctv f16"),
    ("q8_0", "-ctk q8_0 -ctv q8_0"),
    ("rot_q8_0", "-ctk rot_q8_0 -ctv rot_q8_0"),
    ("q8_0 / rot_q4_0", "-ctk q8_0 -ctv rot_q4_0"),
    ("q8_0 / tq3_0", "-ctk q8_0 -ctv tq3_0"),
    ("q4_0", "-ctk q4_0 -ctv q4_0"),
    ("rot_q4_0", "-ctk rot_q4_0 -ctv rot_q4_0"),
    ("rot_q4_0 / tq3_0", "-ctk rot_q4_0 -ctv tq3_0"),
    ("tq3_0 / rot_q4_0", "-ctk tq3_0 -ctv rot_q4_0"),
    ("tq3_0", "-ctk tq3_0 -ctv tq3_0"),
    ("rot_q4_0 + local layers q8_0", "-ctk rot_q4_0 -ctv rot_q4_0 --cache-layers local=q8_0"),
    ("tq3_0 + local layers q8_0", "-ctk tq3_0 -ctv tq3_0 --cache-layers local=q8_0"),
]
REFERENCE = "f16"
SIZES = ["31b", "26b-a4b", "12b", "e4b", "e2b"]
MODELS = ["tiny-31b", "tiny-26b-a4b", "tiny-e2b"]
MODEL_FILE = "models/{}-F16.gguf"
BYTES_CTX = 131072
KL_RUNS = [("trained", 4096), ("other", 4096), ("trained", 16384)]  # text, context: its second half is scored
LENGTHS = [2000, 4000, 8000, 16000]  # of passkey.jsonl
NEEDLE = "--ctx 2048,4096,8192,16384 --depth 0,25,50,75,100"
RESULTS = "bench/long_context.json"
DOCUMENT = "docs/long-context.md"


class Bench:
    def __init__(self, args):
        self.facet, self.shared, self.threads = os.path.abspath(args.facet), args.shared, args.threads
        self.end = time.monotonic() + args.seconds if args.seconds else None
        self.only_print = args.print
        self.work = tempfile.TemporaryDirectory()
        self.results = self.read()

    def read(self):
        try:
            with open(RESULTS) as f:
                return json.load(f)
        except FileNotFoundError:
            return {}

    def run(self, command):
        done = subprocess.run([self.facet, *shlex.split(command)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"facet {command}: {done.stderr.strip()}")
        return done.stdout

    def figure(self, key, measure):
        """The kept figure, or a new one; None when the time is over or the figure cannot be had."""
        if key in self.results or self.only_print or (self.end and time.monotonic() > self.end):
            return self.results.get(key)
        try:
            begun = time.monotonic()
            found = measure()
        except RuntimeError as e:
            print(e, file=sys.stderr)
            return None
        print(f"{time.monotonic() - begun:6.0f} s  {key}", file=sys.stderr)
        self.results = {**self.read(), key: found}  # others may run beside this one
        part = f"{RESULTS}.{os.getpid()}"
        with open(part, "w") as f:
            json.dump(self.results, f, indent=1, sort_keys=True)
            f.write("\n")
        os.replace(part, RESULTS)
        return self.results[key]

    def file(self, name):
        return os.path.join(self.work.name, name)

    def model(self, name):
        return os.path.join(self.shared, MODEL_FILE.format(name)) + f" --device cpu -t {self.threads}"

    def lines(self, name):
        with open(os.path.join(self.shared, "models", name)) as f:
            return [json.loads(line) for line in f]

    # ---- bytes ----

    def hollow(self, size):
        path = self.file(size + ".gguf")
        if not os.path.exists(path):
            self.run(f"quantize --random {size} --hollow {path}")
        return path

    def bytes(self, size, options):
        def measure():
            out = self.run(f"inspect {self.hollow(size)} --ctx {BYTES_CTX} {options}")
            found = re.search(r"KV cache ([\d.]+) MiB \((\d+) bytes per further token", out)
            return {"mib": float(found[1]), "per_token": int(found[2])}
        return self.figure(f"bytes {size} {options}", measure)

    def presets(self):
        """{name: (type of K, type of V)}"""
        out = self.run(f"inspect {self.hollow('e2b')} --ctx 4096")
        return {m[1]: (m[2], m[3]) for m in re.finditer(r"^  (\w+) .*  K (\w+), V (\w+):", out, re.M)}

    # ---- quality ----

    def text(self, kind):
        """trained: answers of the tasks between the long texts, as the models saw them in training. other: sentences of
        the same words that they never saw."""
        path = self.file(kind)
        if not os.path.exists(path):
            with open(path, "w") as f:
                f.write(self.trained_text() if kind == "trained" else self.other_text())
        return path

    def trained_text(self):
        tasks, long, parts = self.lines("tasks.jsonl"), self.lines("passkey.jsonl"), []
        for i, passage in enumerate(p for p in long if p["tokens"] in (4000, 8000)):
            parts += [t["prompt"].replace("<bos>", "") + t["answer"] + "<turn|>\n" for t in tasks[14 * i:14 * i + 14]]
            parts.append(passage["prompt"].replace("<bos>", "") + " " + passage["answer"] + "\n")
        return "".join(parts)

    def other_text(self):
        draw = random.Random(1).choice
        one = {"N": "Anna Tom Clara Mark Nina Oscar".split(), "T": "lamp boat ring book bell drum".split(),
               "P": "garden mill forest market school tower".split(), "A": "dog owl fox horse goat crow".split(),
               "K": "old red small quiet happy green".split()}
        forms = ["N took the T because it was K .", "When N came to the P , the A had gone .",
                 "The K A and the K A sat in the P .", "N asked : where is the T ? It is in the P .",
                 "Nobody in the P saw the K T of N ."]
        text = " ".join(draw(one[w]) if w in one else w for _ in range(4000) for w in draw(forms).split())
        return re.sub(r" ([.,:?])", r"\1", text) + "\n"

    def kl(self, model, text, n_ctx, options):
        def measure():
            reference = dict(SETTINGS)[REFERENCE]
            return json.loads(self.run(f"eval kl -m {self.model(model)} -c {n_ctx} --chunks 1 --special --json "
                                       f"--a {shlex.quote(reference)} --b {shlex.quote(options)} {self.text(text)}"))
        return self.figure(f"kl {model} {text} {n_ctx} {options}", measure)

    def passkey(self, model, options):
        def measure():
            path = self.file("passkey.jsonl")
            with open(path, "w") as f:
                for line in self.lines("passkey.jsonl"):
                    line["task"] = str(line["tokens"])
                    f.write(json.dumps(line) + "\n")
            return json.loads(self.run(f"eval tasks {path} -m {self.model(model)} --json {options}"))["by_task"]
        return self.figure(f"passkey {model} {options}", measure)

    def needle(self, model, options):
        def measure():
            found = json.loads(self.run(f"eval needle -m {self.model(model)} --json {NEEDLE} {options}"))
            return [[c["ctx"], c["depth"], c["right"], c["total"]] for c in found["cells"]]
        return self.figure(f"needle {model} {options}", measure)


def table(head, rows):
    """Rows of which nothing is measured yet are left out."""
    rows = [row for row in rows if any(c.isdigit() for c in "".join(row[1:]))]
    if not rows:
        return "Not measured yet.\n"
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] +
                     ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def known(value, form):
    return "–" if value is None else form(value)


def units(nats):
    """In units of 1e-5."""
    x = 1e5 * nats
    return f"{x:,.0f}" if x >= 100 else f"{x:.2g}" if x >= 1e-4 else "0"


def labels(bench, settings):
    """Names with the presets that stand for the same types."""
    presets = bench.presets()
    for name, options in settings:
        same = [f"`--kv {p}`" for p, (k, v) in presets.items() if options == f"-ctk {k} -ctv {v}"]
        yield (f"{name} ({', '.join(same)})" if same else name), options


def bytes_table(bench, settings):
    def cell(size, options):
        per_token, full = bench.bytes(size, options), bench.bytes(size, dict(SETTINGS)[REFERENCE])
        if not per_token or not full:
            return "–"
        return f"{per_token['per_token']:,} ({100 * per_token['per_token'] / full['per_token']:.0f} %)"
    return table(["K / V"] + SIZES, [[label] + [cell(size, options) for size in SIZES] for label, options in settings])


def kl_tables(bench, settings):
    out = ""
    for text, n_ctx in KL_RUNS:
        rows = []
        for label, options in settings:
            if options == dict(SETTINGS)[REFERENCE]:
                continue
            found = [bench.kl(m, text, n_ctx, options) for m in MODELS]
            rows.append([label] + [known(f, lambda f: f"{units(f['mean_kl'])} ± {units(f['mean_kl_error'])}; "
                                         f"{units(f['median_kl'])}; {units(f['p99_kl'])}; "
                                         f"{100 * f['same_argmax']:.2f} %") for f in found])
        kind = {"trained": "the models' kind of text", "other": "sentences unlike their training"}[text]
        out += f"A context of {n_ctx:,} tokens, {kind}:\n\n" + table(["K / V"] + MODELS, rows) + "\n"
    return out


def passkey_table(bench, settings):
    def cell(model, options, n):
        found = bench.passkey(model, options)
        return known(found, lambda f: f"{f[str(n)][0]}/{f[str(n)][1]}")
    return table(["K / V"] + [f"{m}: 2k, 4k, 8k, 16k" for m in MODELS],
                 [[label] + [", ".join(cell(m, options, n) for n in LENGTHS) for m in MODELS] for label, options in settings])


def needle_table(bench, settings):
    def cell(found):
        lengths = sorted({c[0] for c in found})
        return ", ".join(f"{sum(c[2] for c in found if c[0] == n)}/{sum(c[3] for c in found if c[0] == n)}" for n in lengths)
    return table(["K / V"] + [f"{m}: 2k, 4k, 8k, 16k" for m in MODELS],
                 [[label] + [known(bench.needle(m, options), cell) for m in MODELS] for label, options in settings])


def put(name, text):
    """Writes a table between its markers in the document."""
    with open(DOCUMENT) as f:
        document = f.read()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if begin not in document or end not in document:
        print(f"{DOCUMENT} has no place for {name}:\n\n{text}")
        return
    head, tail = document.split(begin, 1)
    with open(DOCUMENT, "w") as f:
        f.write(head + begin + "\n" + text.rstrip("\n") + "\n\n" + end + tail.split(end, 1)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--facet", default="build/facet")
    parser.add_argument("--shared", default="../shared")
    parser.add_argument("--only", default="bytes,kl,passkey,needle")
    parser.add_argument("--models")
    parser.add_argument("--settings")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--longest", type=int, default=1 << 20)
    parser.add_argument("--print", action="store_true")
    args = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    bench = Bench(args)
    tables = {"bytes": bytes_table, "kl": kl_tables, "passkey": passkey_table, "needle": needle_table}
    wanted = args.settings.split(",") if args.settings else None
    models = args.models.split(",") if args.models else MODELS
    chosen = [(name, options) for name, options in SETTINGS if not wanted or name in wanted]
    for kind in args.only.split(","):  # what was asked for is measured first ...
        if kind == "kl":
            for (text, n_ctx), (name, options), model in itertools.product(KL_RUNS, chosen, models):
                if name != REFERENCE and n_ctx <= args.longest:
                    bench.kl(model, text, n_ctx, options)
        elif kind == "bytes":
            for (name, options), size in itertools.product(chosen, SIZES):
                bench.bytes(size, options)
        else:
            for (name, options), model in itertools.product(chosen, models):
                getattr(bench, kind)(model, options)
    bench.only_print = True  # ... then every table is written from what there is
    rows = list(labels(bench, SETTINGS))
    for kind, make in tables.items():
        put(kind, make(bench, rows))


if __name__ == "__main__":
    main()
