"""The OpenAPI document of a server: what its requests and answers look like."""

from __future__ import annotations

from typing import Any

from seq2seq import __version__
from seq2seq.serve.api import FORMATS, PACKED, Api

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_STRINGS: Json = {"type": "array", "items": _STRING}
_CODE: Json = {"type": "string", "description": "language code"}
_ERRORS = {
    "400": "wrong request",
    "403": "no API key, or a wrong one",
    "408": "the client was too slow",
    "413": "the request is too large",
    "429": "too many requests are waiting",
    "500": "a bug",
    "501": "needs a package that is not installed",
    "503": "the server is stopping, or the translation takes too long",
}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _operation(summary: str, answer: Json, kind: str = "application/json", **more: Any) -> Json:
    good = {"description": summary, "content": {kind: {"schema": answer}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    bad = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"summary": summary, "responses": {"200": good, **bad}, **more}


def _body(schemas: dict[str, Json]) -> Json:
    return {"required": True, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def document(api: Api) -> Json:
    """The OpenAPI 3.1 document, with the languages and limits of this server."""
    pairs = [(one.source, one.target) for one in api.models.directions]
    targets = list(dict.fromkeys(target for _, target in pairs))

    def between(source: str, target: str) -> Json:
        """Only pairs of languages that there are."""
        known: list[Json] = [
            {"properties": {source: {"enum": [one]}, target: {"enum": [other]}}} for one, other in pairs
        ]
        return {"anyOf": [*known, {"properties": {source: {"enum": ["auto"]}, target: {"enum": targets}}}]}

    text = {"type": "string", "minLength": 1, "maxLength": api.settings.max_characters}
    texts = {**_STRINGS, "minItems": 1, "maxItems": api.settings.max_lines}
    key = {"api_key": {"type": ["string", "null"], "description": "or the header Authorization: Bearer KEY"}}
    side = {"source": _CODE, "target": _CODE}
    number: Json = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    count: Json = {"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]}
    kind: Json = {"enum": ["text", "html", ""]}
    q: Json = {"anyOf": [text, texts]}
    repeated: Json = {"anyOf": [text, {**texts, "minItems": 2}]}  # of a form
    three, absent = ["q", "source", "target"], {"type": "null"}  # a form has no null
    translate_form = _object(three, q=repeated, **side, format=kind, alternatives=count, **key)
    translate_form |= between("source", "target")
    optional = {"format": {"anyOf": [kind, absent]}, "alternatives": {"anyOf": [count, absent]}}
    translate = _object(three, q=q, **side, **optional, **key) | between("source", "target")
    form, json = "application/x-www-form-urlencoded", "application/json"
    kiss = _object(["texts", "from", "to"], texts=texts, **{"from": _CODE, "to": _CODE}, **key)
    kiss |= {**between("from", "to"), "not": {"required": ["text_list"]}}
    immersive = _object(
        ["text_list", "source_lang", "target_lang"], text_list=texts, source_lang=_CODE, target_lang=_CODE, **key
    )
    immersive |= between("source_lang", "target_lang")
    names = f"its name ends in {', '.join(FORMATS)}, or in one of these and {PACKED}"
    content = {"type": "string", "format": "binary", "description": names}
    file = _object(["file", "source", "target"], file=content, **side, **key)
    file |= between("source", "target")
    explain = _object(["q", "translation", "source", "target"], q=text, translation=text, **side, **key)
    explain |= between("source", "target")
    detected = _object(["language", "confidence"], language=_CODE, confidence={"type": "number"})
    translated = _object(
        ["translatedText"],
        translatedText={"anyOf": [_STRING, _STRINGS]},
        alternatives=_array({"anyOf": [_STRING, _STRINGS]}),
        detectedLanguage={"anyOf": [detected, _array(detected)]},
    )
    one = _object(["text"], text=_STRING, src=_CODE, detected_source_lang=_CODE)
    numbers = _array({"type": "number"})
    seen = _object(
        ["source", "target", "probabilities", "alignment"],
        source=_STRINGS,
        target=_STRINGS,
        probabilities=numbers,
        alignment={"anyOf": [_array(numbers), {"type": "null"}]},
    )
    language = _object(["code", "name"], code=_CODE, name=_STRING)
    token = {"name": "name", "in": "path", "required": True, "schema": _STRING}
    paths = {
        "/translate": {
            "post": _operation(
                "Translate a text, or a list.", translated, requestBody=_body({json: translate, form: translate_form})
            )
        },
        "/translate_list": {
            "post": _operation(
                "Translate a list; for browser add-ons.",
                _object(["translations"], translations=_array(one)),
                requestBody=_body({json: {"anyOf": [kiss, immersive]}}),
            )
        },
        "/detect": {
            "post": _operation(
                "Detect the language of a text.",
                _array(detected),
                requestBody=_body(
                    {kind: _object(["q"], q=some, **key) for kind, some in ((json, q), (form, repeated))}
                ),
            )
        },
        "/translate_file": {
            "post": _operation(
                "Translate a file: text, HTML, a table (TSV, CSV), JSON lines or TMX, by the end of its name.",
                _object(["translatedFileUrl"], translatedFileUrl=_STRING),
                requestBody=_body({"multipart/form-data": file}),
            )
        },
        "/download_file/{name}": {
            "get": _operation("Fetch a translated file.", _STRING, "application/octet-stream", parameters=[token])
        },
        "/explain": {
            "post": _operation(
                "What the model looked at: pieces, probabilities, and attention from target to source.",
                seen,
                requestBody=_body({json: explain}),
            )
        },
        "/languages": {
            "get": _operation(
                "List languages.", _array({**language, "properties": {**language["properties"], "targets": _STRINGS}})
            )
        },
        "/frontend/settings": {
            "get": _operation(
                "Limits and defaults.",
                _object(
                    ["charLimit", "language", "supportedFilesFormat"],
                    charLimit={"type": "integer"},
                    supportedFilesFormat=_STRINGS,
                    language=_object(["source", "target"], source=language, target=language),
                ),
            )
        },
        "/health": {"get": _operation("Whether the server works.", _object(["status"], status=_STRING))},
        "/metrics": {"get": _operation("Counters for Prometheus.", _STRING, "text/plain")},
    }
    paths["/download_file/{name}"]["get"]["responses"]["404"] = {
        "description": "no such file",
        "content": {json: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "seq2seq", "version": __version__, "description": "LibreTranslate's API, and a few more."},
        "paths": paths,
        "components": {"schemas": {"Error": _object(["error"], error=_STRING)}},
    }
