#!/usr/bin/env python3
"""Random JSON schemas against a server, whose answers must fit by python3-jsonschema: schemas.py

Environment: FACET_URL; FACET_SCHEMAS, how many (default 40); FACET_SEED. The server should have drafters: the way of
drafting, the temperature and thoughts change from schema to schema, and every fourth answer is asked for again without
drafts, which must give the same text. Each schema is also sent with a part that cannot be guaranteed somewhere in it,
and must be refused with the place of that part. Answers that max_tokens cut are counted, and must be few."""
import copy
import datetime
import json
import os
import random
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import jsonschema

URL = os.environ.get("FACET_URL", "http://127.0.0.1:8080")
COUNT, SEED = int(os.environ.get("FACET_SCHEMAS", "40")), int(os.environ.get("FACET_SEED", "1"))
METHODS = ["none", "ngram", "mtp", "dflash", "auto"]
NAMES = ["id", "name", "n", "value", "caf\u00e9", "with space", "q\"uote", "a/b", "t~e", "\\slash", "\u65e5", "x%y"]
PATTERNS = ["^[A-Z]{3}$", "^[a-z]+(-[a-z0-9]+){0,2}$", "^\\d{3}-\\d{4}$", "^(?:red|green|blue){1,2}$", "^[^a-z]{2,5}$",
            "^a.c$", "^(a|b|\"c\\\\){0,4}$", "^[\\w.+]{1,10}@[a-z]{2,4}$", "^[A-Z][a-z]{0,6}$|^[0-9]{2}$",
            "^\\$[0-9]{1,3}\\.[0-9]{2}$"]
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email"]
# What cannot be guaranteed: a keyword, its value.
UNSUPPORTED = [("not", {"type": "string"}), ("if", {"type": "string"}), ("contains", {"type": "integer"}),
               ("propertyNames", {"minLength": 1}), ("dependentRequired", {"a": ["b"]}),
               ("unevaluatedProperties", False), ("$dynamicRef", "#x")]

formats = jsonschema.FormatChecker()


@formats.checks("date-time", raises=ValueError)
def is_date_time(text):
    return not isinstance(text, str) or bool(datetime.datetime.fromisoformat(
        re.sub(r"\.\d+", "", re.sub("[zZ]$", "+00:00", text)).replace(":60", ":59")))


@formats.checks("time", raises=ValueError)
def is_time(text):
    return not isinstance(text, str) or is_date_time("2024-02-29T" + text)


class Maker:
    """Schemas of what docs/grammars.md says is supported; lengths and counts are bounded so that answers end."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def chance(self, percent):
        return self.r.randrange(100) < percent

    def string(self):
        s = {"type": "string"}
        kind = self.r.randrange(4)
        if kind == 0:
            s["pattern"] = self.r.choice(PATTERNS)
        elif kind == 1:
            s["format"] = self.r.choice(FORMATS)
        else:
            s["minLength"] = self.r.randrange(4)
            s["maxLength"] = s["minLength"] + self.r.randrange(1, 12)
        return s

    def number(self):
        s = {"type": self.r.choice(["integer", "number"])}
        low = self.r.randrange(-2000, 1500)
        if self.chance(70):
            s[self.r.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance(70):
            s[self.r.choice(["maximum", "exclusiveMaximum"])] = low + self.r.randrange(20, 3000)
        if self.chance(25):
            s["multipleOf"] = self.r.randrange(1, 18)
        elif s["type"] == "number" and self.chance(25):
            s["multipleOf"] = self.r.choice([0.1, 0.01])
        return s

    def value(self):
        return self.r.choice([None, True, False, self.r.randrange(-99, 99), 0.125, "a", "", "two words", "\u00e9t\u00e9",
                              "q\"u\\", [1, "x"], {"k": 2}])

    def enum(self):
        if self.chance(30):
            return {"const": self.value()}
        return {"enum": [self.value() for _ in range(self.r.randrange(1, 6))]}

    def array(self, depth):
        s = {"type": "array", "minItems": self.r.randrange(3)}
        s["maxItems"] = s["minItems"] + self.r.randrange(3)
        if self.chance(25):
            s["prefixItems"] = [self.schema(depth + 1) for _ in range(self.r.randrange(1, 3))]
        s["items"] = self.schema(depth + 1)
        return s

    def object(self, depth):
        names = self.r.sample(NAMES, self.r.randrange(1, 5))
        s = {"type": "object", "properties": {n: self.schema(depth + 1) for n in names}, "additionalProperties": False}
        s["required"] = [n for n in names if self.chance(70)]
        return s

    def combination(self, depth):
        kind = self.r.randrange(4)
        if kind == 0:
            return {"oneOf": [self.string(), {"type": "null"}, self.number()]}
        if kind == 1:
            return {"allOf": [{"type": "number", "minimum": self.r.randrange(-50, 50)},
                              {"type": ["integer", "string"], "maximum": self.r.randrange(60, 90)}]}
        if kind == 2:
            return {"type": "object", "additionalProperties": False,
                    "properties": {"p": self.schema(depth + 1), "q": self.schema(depth + 1)},
                    "anyOf": [{"required": ["p"]}, {"required": ["q"]}]}
        return {"anyOf": [self.schema(depth + 1) for _ in range(self.r.randrange(1, 4))]}

    def schema(self, depth):
        kind = self.r.randrange(5 if depth >= 3 else 10)
        if kind < 2:
            return self.string()
        if kind < 3:
            return self.number()
        if kind < 4:
            return self.enum()
        if kind < 5:
            return {"$ref": self.r.choice(["#/$defs/short", "#/$defs/pair~1x", "#/$defs/list"])}
        if kind < 6:
            return self.array(depth)
        return self.object(depth) if kind < 9 else self.combination(depth)

    def document(self):
        s = self.object(0) if self.chance(70) else self.schema(0)
        s = dict(s)
        s["$defs"] = {"short": {"type": ["boolean", "null"]},
                      "pair/x": {"type": "array", "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 9},
                                                                  {"enum": ["l", "r"]}], "minItems": 2, "items": False},
                      "list": {"type": "object", "additionalProperties": False, "required": ["v"],
                               "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/list"}}}}
        return s

    def spoil(self, schema):
        """A copy with a part that is not supported, and the place of that part as a JSON pointer."""
        spoiled = copy.deepcopy(schema)
        places = []

        def walk(s, path):
            if "$ref" not in s or not path:
                places.append((s, path))
            for name, sub in s.get("properties", {}).items():
                walk(sub, path + ["properties", name])
            for key in ("prefixItems", "anyOf", "oneOf"):
                for i, sub in enumerate(s.get(key, [])):
                    if "required" not in sub and (key != "prefixItems" or i < s.get("maxItems", i + 1)):
                        walk(sub, path + [key, str(i)])
            if isinstance(s.get("items"), dict) and s.get("maxItems", 1) > len(s.get("prefixItems", [])):
                walk(s["items"], path + ["items"])
        walk(spoiled, [])
        where, path = self.r.choice(places)
        key, value = self.r.choice(UNSUPPORTED)
        where[key] = value
        return spoiled, "#" + "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in path + [key])


def ask(body):
    request = urllib.request.Request(URL + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", "Authorization": "Bearer sesame"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def exact(text):
    """JSON with numbers as they are written, so that multiples of 0.1 can be told."""
    return json.loads(text, parse_float=Decimal)


def check_answer(maker, schema, number):
    body = {"messages": [{"role": "user", "content": "What is 82 - 61?"}], "max_tokens": 400, "seed": number,
            "temperature": maker.r.choice([0, 0.8, 1.5]), "speculation": METHODS[number % len(METHODS)],
            "enable_thinking": number % 7 == 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    status, reply = ask(body)
    if status != 200:
        return f"status {status}: {reply}"
    choice = reply["choices"][0]
    content, finish = choice["message"]["content"], choice["finish_reason"]
    if number % 4 == 0:
        plain = ask({**body, "speculation": "none"})[1]["choices"][0]["message"]["content"]
        if plain != content:
            return f"with drafts ({body['speculation']}) {content!r}, without {plain!r}"
    if finish == "length":
        return "cut"
    try:
        jsonschema.Draft202012Validator(exact(json.dumps(schema)), format_checker=formats).validate(exact(content))
    except (jsonschema.ValidationError, ValueError) as e:
        return f"{content!r} does not fit: {str(e)[:300]}"
    return None if finish == "stop" else f"finish_reason {finish}"


def check_refusal(maker, schema):
    spoiled, place = maker.spoil(schema)
    status, reply = ask({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "json_schema": spoiled})
    message = reply.get("error", {}).get("message", "")
    if status == 400 and place in message:
        return None
    return f"wanted a refusal that names {place}, got {status}: {message or reply}; schema: {json.dumps(spoiled)}"


def check(number):
    maker = Maker(SEED * 1000003 + number)
    schema = maker.document()
    problem = check_answer(maker, schema, number)
    refusal = check_refusal(maker, schema)
    return number, problem, refusal, schema


def main():
    cut, n_fit, wrong = 0, 0, []
    with ThreadPoolExecutor(4) as pool:
        for number, problem, refusal, schema in pool.map(check, range(COUNT)):
            cut += problem == "cut"
            n_fit += problem is None
            if problem and problem != "cut":
                wrong.append(f"schema {number}: {problem}; schema: {json.dumps(schema)}")
            if refusal:
                wrong.append(f"schema {number}: {refusal}")
    print(f"{COUNT} schemas (seed {SEED}): {n_fit} answers fit, {cut} cut by max_tokens, "
          f"{COUNT} spoiled ones sent; {len(wrong)} wrong")
    print("\n".join(wrong[:5]))
    sys.exit(1 if wrong or cut > COUNT // 10 else 0)


main()
