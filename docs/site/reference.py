"""The page of the API reference: every call of docs/openapi.json, with samples in Python, JavaScript and curl."""

import json
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

INTRODUCTION = """\
# API reference

Made of the API's [description](openapi.json), which is also at `/openapi.json` of every server; [the API](api.md)
explains what holds for all calls. The samples need a server's address and a key, and in Python `pip install httpx`:

::::{tab-set}
:sync-group: language

:::{tab-item} Python
:sync: python

```python
import httpx

api = httpx.Client(base_url="http://127.0.0.1:8000", headers={"Authorization": "Bearer regen_..."}, timeout=60)
```
:::

:::{tab-item} JavaScript
:sync: javascript

```js
const URL = "http://127.0.0.1:8000";
const headers = { Authorization: "Bearer regen_..." };
const json = { ...headers, "Content-Type": "application/json" };
```
:::

:::{tab-item} curl
:sync: curl

```sh
URL=http://127.0.0.1:8000 KEY=regen_...
```
:::
::::
"""
# What a call that takes JSON is sent. A call that is missing here and needs a body is an error.
BODIES: dict[str, Schema] = {
    "createPreview": {"file_id": "FILE_ID", "at_seconds": 1.2},
    "estimateRender": {"file_id": "FILE_ID", "engine": "regen-4x"},
    "openUpload": {"name": "clip.mp4", "size_bytes": 100_000_000},
    "completeUpload": {"parts": [{"number": 1, "etag": "ETAG"}]},
    "deliverResult": {"destination": "https://example.com/results/clip-4x.mp4"},
    "createWebhook": {"url": "https://example.com/hooks/regen"},
    "updateWebhook": {"enabled": False},
    "createOwnKey": {"name": "ci", "scopes": ["read"]},
    "createUser": {"name": "alice"},
    "updateUser": {"limits": {"requests": "100/minute"}},
    "createKey": {"name": "ci", "scopes": ["read", "write"]},
    "updateKey": {"name": "nightly"},
}
# What a call that takes a form is sent beside the file.
FORMS = {"upscale": {"engine": "regen-4x", "target_fps": "59.94"}, "uploadFile": {}}
# A stream of events does not end of itself soon.
STREAMED = "watchRender"


@dataclass(frozen=True)
class Call:
    """One operation of the description."""

    method: str
    path: str
    operation: Schema

    @property
    def id(self) -> str:
        name: str = self.operation["operationId"]
        return name

    @property
    def sent_path(self) -> str:
        """The path with placeholders in capitals: /v1/renders/RENDER_ID."""
        parts = (part[1:-1].upper() if part.startswith("{") else part for part in self.path.split("/"))
        return "/".join(parts)

    @property
    def needs_key(self) -> bool:
        return bool(self.operation.get("security"))


def reference_page(document: Schema) -> str:
    """The page, in MyST's Markdown. Raises KeyError for a call whose body has no sample."""
    calls = [
        Call(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    blocks = [INTRODUCTION]
    for tag in document["tags"]:
        of_tag = [call for call in calls if call.operation["tags"] == [tag["name"]]]
        if of_tag:
            blocks.append(f"## {tag['name'].capitalize()}\n\n{tag['description']}\n")
        blocks += (_call(call, document) for call in of_tag)
    return "\n".join(blocks)


def _call(call: Call, document: Schema) -> str:
    blocks = [f"### {call.method.upper()} {call.path}", call.operation.get("description", "")]
    rows = [
        (f"`{parameter['name']}`", parameter["in"], _words(parameter.get("description", "")))
        for parameter in call.operation.get("parameters", [])
    ]
    body = call.operation.get("requestBody", {}).get("content", {})
    if body:
        schema = _resolved(next(iter(body.values()))["schema"], document)
        rows += (
            (f"`{name}`", "body", _words(_resolved(field, document).get("description", "")))
            for name, field in sorted(schema.get("properties", {}).items())
        )
    if rows:
        blocks.append(
            "| field | in | |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
        )
    blocks.append(_samples(call))
    statuses = ", ".join(call.operation["responses"])
    blocks.append(f"Statuses: {statuses}.{_answer(call, document)}")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _answer(call: Call, document: Schema) -> str:
    content = call.operation["responses"].get("200", {}).get("content", {})
    schema = _resolved(content.get("application/json", {}).get("schema", {}), document)
    names = [f"`{name}`" for name in schema.get("properties", {})]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return f" The answer has {listed}." if names else ""


def _samples(call: Call) -> str:
    tabs = (
        ("Python", "python", "python", _python),
        ("JavaScript", "javascript", "js", _javascript),
        ("curl", "curl", "sh", _curl),
    )
    items = (
        f":::{{tab-item}} {title}\n:sync: {sync}\n\n```{language}\n{sample(call)}\n```\n:::\n"
        for title, sync, language, sample in tabs
    )
    return "::::{tab-set}\n:sync-group: language\n\n" + "\n".join(items) + "::::"


def _python(call: Call) -> str:
    if call.id == STREAMED:
        return (
            f'with api.stream("GET", "{call.sent_path}") as answer:\n'
            "    for line in answer.iter_lines():\n        print(line)"
        )
    options = ""
    if call.id in FORMS:
        fields = FORMS[call.id]
        options = ', files={"file": open("clip.mp4", "rb")}' + (
            f", data={json.dumps(fields)}" if fields else ""
        )
    elif body := _body(call):
        options = f", json={_literal(body)}"
    sent = f'api.{call.method}("{call.sent_path}"{options})'
    return f"{sent}.raise_for_status()" if "204" in call.operation["responses"] else f"{sent}.json()"


def _javascript(call: Call) -> str:
    if call.id in FORMS:
        lines = ["const form = new FormData();"]
        lines += (f'form.append("{name}", "{value}");' for name, value in FORMS[call.id].items())
        lines.append('form.append("file", file); // of an <input type="file">')
        sent = f'`${{URL}}{call.sent_path}`, {{ method: "POST", headers, body: form }}'
        return "\n".join([*lines, f"await (await fetch({sent})).json();"])
    body = _body(call)
    options = ", ".join(
        [
            *([] if call.method == "get" else [f'method: "{call.method.upper()}"']),
            *(["headers: json", f"body: JSON.stringify({json.dumps(body)})"] if body else ["headers"]),
        ]
    )
    sent = f"fetch(`${{URL}}{call.sent_path}`, {{ {options} }})"
    if call.id == STREAMED:
        return f"for await (const bytes of (await {sent}).body) console.log(new TextDecoder().decode(bytes));"
    return f"await {sent};" if "204" in call.operation["responses"] else f"await (await {sent}).json();"


def _curl(call: Call) -> str:
    parts = [f'curl -s{"N" if call.id == STREAMED else ""} "$URL{call.sent_path}"']
    if call.needs_key:
        parts.append('-H "Authorization: Bearer $KEY"')
    body = _body(call)
    if call.id in FORMS:
        parts.append("-F file=@clip.mp4")
        parts += (f"-F {name}={value}" for name, value in FORMS[call.id].items())
    elif body:
        if call.method != "post":
            parts.append(f"-X {call.method.upper()}")
        parts += ('-H "Content-Type: application/json"', f"-d '{json.dumps(body)}'")
    elif call.method != "get":
        parts.append(f"-X {call.method.upper()}")
    return " ".join(parts)


def _body(call: Call) -> Schema | None:
    return BODIES[call.id] if "requestBody" in call.operation and call.id not in FORMS else None


def _literal(value: object) -> str:
    return repr(value).replace("'", '"')


def _words(text: str) -> str:
    """A description as a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _resolved(schema: Schema, document: Schema) -> Schema:
    """The schema that a reference names, or the first of several forms."""
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return _resolved(schema[name][0], document) | {
                key: value for key, value in schema.items() if key != name
            }
    if "$ref" not in schema:
        return schema
    target: Any = document
    for key in schema["$ref"].removeprefix("#/").split("/"):
        target = target[key]
    return _resolved(target, document)
