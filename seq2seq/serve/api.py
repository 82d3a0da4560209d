"""What the server answers: the requests of LibreTranslate's API and a few more, checked and translated.

Requests are mappings, as JSON or a form has them; this file knows no HTTP except status codes.
"""

from __future__ import annotations

import hmac
import io
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

from seq2seq.data.clean_rules import likely_languages
from seq2seq.data.formats.lines import decode_line, read_stream
from seq2seq.decode.placing import Bare
from seq2seq.errors import DataError, UserError
from seq2seq.languages import english_name, script_in, short_code, writing_of
from seq2seq.serve import documents
from seq2seq.serve.batcher import Batcher, Found, Loaded, QueueFullError, StoppedError
from seq2seq.serve.markup import escaped, join_html, split_html
from seq2seq.serve.models import Direction, Models

T = TypeVar("T")
Fields = Mapping[str, Any]

FORMATS = (*documents.ENDINGS, ".html", ".htm")  # of files
PACKED = ".gz"  # may follow them
_KEPT_FILES, _KEPT_SECONDS = 64, 600  # translated files wait so long to be downloaded
_PREVIEW = 1000  # characters of a sentence to look into


class Wait(Protocol):
    """Waits for a result; raises :class:`RefusedError` if that takes too long or the client is gone."""

    def __call__(self, future: Future[T], /) -> Awaitable[T]:
        """The result of a future."""


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


@dataclass(frozen=True)
class Settings:
    """Who may ask, and how much."""

    max_characters: int  # of a request
    max_lines: int
    timeout: float  # seconds
    keys: tuple[str, ...] = ()  # none: everybody may ask

    @property
    def max_bytes(self) -> int:
        """Of a request: a character has at most 12 bytes in JSON, \\ud83d\\ude00."""
        return 12 * self.max_characters + 65_536


@dataclass(frozen=True)
class _Wanted:
    """The texts of a request, and how they are translated."""

    texts: list[str]
    direction: Direction
    detected: dict[str, Any] | None  # language and confidence, if the client did not state the language
    html: bool = False
    alternatives: int = 0


class Api:
    """The answers of a server, by its models."""

    def __init__(self, models: Models, batcher: Batcher, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self._batcher = batcher
        self._reader = ThreadPoolExecutor(1, "documents")  # reading one can take a second
        self._files: dict[str, tuple[str, bytes, float]] = {}  # name, content and end of each translated file

    def check_key(self, given: object) -> None:
        """Refuse a wrong key, in a time that does not depend on how wrong it is."""
        if not isinstance(given, (str, type(None))):
            raise RefusedError(400, "api_key: not a text")
        if not self.settings.keys:
            return
        if not given:
            raise RefusedError(403, "this server needs an API key: api_key, or the header Authorization: Bearer KEY")
        equal = [hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()) for key in self.settings.keys]
        if not any(equal):
            raise RefusedError(403, "invalid API key")

    def languages(self) -> list[dict[str, Any]]:
        """All languages, each with those that it is translated to."""
        found = self.models.languages()
        return [{"code": code, "name": english_name(code), "targets": targets} for code, targets in found.items()]

    def frontend_settings(self) -> dict[str, Any]:
        """What a page needs to know."""
        first = self.models.directions[0]
        pair = {"source": first.source, "target": first.target}
        return {
            "charLimit": self.settings.max_characters,
            "frontendTimeout": 500,
            "apiKeys": bool(self.settings.keys),
            "keyRequired": bool(self.settings.keys),
            "suggestions": False,
            "filesTranslation": True,
            "supportedFilesFormat": [*FORMATS, PACKED],
            "language": {side: {"code": code, "name": english_name(code)} for side, code in pair.items()},
        }

    async def translate(self, fields: Fields, wait: Wait) -> dict[str, Any]:
        """``{q, source, target, format, alternatives}`` to ``{translatedText, ...}``; lists for a list."""
        wanted = self._wanted(fields, "q", "source", "target")
        if wanted.html:
            best = await self._translate_html(wanted, wait)
            others: list[list[str]] = [[] for _ in best]
        else:
            ranked = await self._translate_texts(wanted.direction.loaded, wanted.texts, wanted.alternatives, wait)
            best, others = [texts[0] for texts in ranked], [texts[1:] for texts in ranked]
        is_list = isinstance(fields["q"], list)
        answer: dict[str, Any] = {"translatedText": best if is_list else best[0]}
        if wanted.detected is not None:
            answer["detectedLanguage"] = [wanted.detected] * len(best) if is_list else wanted.detected
        if wanted.alternatives:
            answer["alternatives"] = others if is_list else others[0]
        return answer

    async def translate_list(self, fields: Fields, wait: Wait) -> dict[str, Any]:
        """The two forms that browser add-ons send, each with its own answer.

        KISS Translator: ``{texts, from, to}`` to ``{translations: [{text, src}]}``; Immersive Translate:
        ``{text_list, source_lang, target_lang}`` to ``{translations: [{text, detected_source_lang}]}``.
        """
        immersive = "text_list" in fields
        names = ("text_list", "source_lang", "target_lang") if immersive else ("texts", "from", "to")
        if not isinstance(fields.get(names[0]), list):
            raise RefusedError(400, f"{names[0]}: missing, or not a list of texts")
        wanted = self._wanted(fields, *names)
        ranked = await self._translate_texts(wanted.direction.loaded, wanted.texts, 0, wait)
        language, key = wanted.direction.source, "detected_source_lang" if immersive else "src"
        return {"translations": [{"text": texts[0], key: language} for texts in ranked]}

    def detect(self, fields: Fields) -> list[dict[str, Any]]:
        """``{q}`` to a list of ``{language, confidence}``, most likely first; confidence is up to 100."""
        return self._detect(self._limited(_texts(fields, "q")), list(self.models.languages()))

    async def translate_file(self, fields: Fields, name: str, content: bytes, wait: Wait) -> str:
        """Translate a file; returns the name under which :meth:`file` has the translation for ten minutes."""
        inner = name.lower().removesuffix(PACKED)
        ending = next((ending for ending in FORMATS if inner.endswith(ending)), None)
        if ending is None:
            supported = f"{', '.join(FORMATS)}, and each of them with {PACKED}"
            raise RefusedError(400, f"file format not supported; supported: {supported}")
        try:
            if ending in documents.ENDINGS:
                direction, translated = await self._translate_document(fields, ending, content, wait)
            else:
                direction, translated = await self._translate_html_file(fields, content, wait)
        except DataError as error:
            raise RefusedError(400, str(error)) from None
        for old, (_, _, end) in list(self._files.items()):
            if end < monotonic() or len(self._files) >= _KEPT_FILES:
                del self._files[old]  # the oldest ones come first
        token = f"{secrets.token_urlsafe(24)}{ending}"
        proposed = f"translated.{short_code(direction.target)}{ending}"
        self._files[token] = (proposed, translated, monotonic() + _KEPT_SECONDS)
        return token

    def file(self, token: str) -> tuple[str, bytes]:
        """Name and content of a translated file."""
        name, content, end = self._files.get(token, ("", b"", -math.inf))
        if end < monotonic():
            raise RefusedError(404, "no such file; translated files are kept for ten minutes")
        return name, content

    async def explain(self, fields: Fields, wait: Wait) -> dict[str, Any]:
        """``{q, translation, source, target}``, one sentence each, to what the model looked at, and how sure it was."""
        wanted = self._wanted(fields, "q", "source", "target")
        (target,) = _texts(fields, "translation") if isinstance(fields.get("translation"), str) else [""]
        if len(wanted.texts) > 1 or max(len(target), len(wanted.texts[0])) > _PREVIEW:
            raise RefusedError(400, f"q and translation: one sentence each, of at most {_PREVIEW} characters")
        loaded, text = wanted.direction.loaded, wanted.texts[0]

        def look() -> dict[str, Any]:
            (score,) = loaded.translator.score([text], [target], loaded.decode)
            seen = loaded.translator.attention(text, target)
            where = seen.alignment
            return {
                "source": seen.source,
                "target": seen.target,
                "probabilities": [round(math.exp(log_prob), 4) for _, log_prob in score.tokens],
                "alignment": None if where is None else [[round(float(x), 4) for x in row] for row in where],
            }

        try:
            return await wait(self._accepted(lambda: self._batcher.call(look)))
        except UserError as error:  # too long, or a kind of model that cannot be looked into
            raise RefusedError(400, str(error)) from None

    async def _translate_html_file(self, fields: Fields, content: bytes, wait: Wait) -> tuple[Direction, bytes]:
        data = documents.unpacked(content, self.settings.max_bytes)
        for number, line in enumerate(read_stream(io.BytesIO(data), "the file"), start=1):
            decode_line(line, "the file", number)  # for an error with its number
        wanted = self._wanted({**fields, "q": data.decode("utf-8-sig"), "format": "html"}, "q", "source", "target")
        (translated,) = await self._translate_html(wanted, wait)
        return wanted.direction, translated.encode()

    async def _translate_document(
        self, fields: Fields, ending: str, content: bytes, wait: Wait
    ) -> tuple[Direction, bytes]:
        """The translation of a text, a table, JSON lines or a translation memory."""
        directions = self._directions(*self._codes(fields, "source", "target"))
        sources, target = [one.source for one in directions], directions[0].target
        limits = documents.Limits(self.settings.max_bytes, self.settings.max_lines)
        read = partial(documents.read_document, content, ending, sources, target, limits)
        document = await wait(self._reader.submit(read))
        source = fields["source"] if document.source is None else document.source
        asked = {**fields, "q": document.texts or [""], "source": source, "format": "text"}
        wanted = self._wanted(asked, "q", "source", "target")
        ranked = await self._translate_texts(wanted.direction.loaded, wanted.texts, 0, wait)
        filled = await wait(self._reader.submit(document.filled, [best for best, *_ in ranked]))
        return wanted.direction, filled

    async def _translate_texts(
        self, loaded: Loaded, texts: Sequence[str], alternatives: int, wait: Wait
    ) -> list[list[str]]:
        """The translations of each text, best first; each of its lines is translated by itself."""
        lines = [text.split("\n") for text in texts]
        stripped = [line.removesuffix("\r") for some in lines for line in some]
        n_best = 1 + min(alternatives, loaded.decode.num_hypotheses - 1)
        found = iter(await self._submit(loaded, stripped, n_best, wait))
        ranked = []
        for some in lines:
            of_lines = [[one.text for one in next(found)] for _ in some]
            ends = ["\r" if line.endswith("\r") else "" for line in some]
            whole = []
            for rank in range(max(map(len, of_lines))):  # a line that has fewer repeats its last one
                chosen = [texts[min(rank, len(texts) - 1)] for texts in of_lines]
                whole.append("\n".join(text + end for text, end in zip(chosen, ends, strict=True)))
            ranked.append(list(dict.fromkeys(whole)))
        return ranked

    async def _translate_html(self, wanted: _Wanted, wait: Wait) -> list[str]:
        """The translation of each HTML text, sentence by sentence; tags inside a sentence are put into its translation.

        Where the model cannot be looked into, each text between two tags is translated by itself.
        """
        loaded = wanted.direction.loaded
        pieces = [split_html(text) for text in wanted.texts]
        sentences = [piece for some in pieces for piece in some if piece.text is not None]
        found = await self._submit(loaded, [str(piece.text) for piece in sentences], 1, wait)
        translated: list[str | None] = []
        for piece, (best, *_) in zip(sentences, found, strict=True):
            if not piece.elements:
                translated.append(escaped(best.text))
                continue
            placed = partial(_with_elements, loaded, Bare(str(piece.text), piece.elements), best.text)
            translated.append(await wait(self._accepted(partial(self._batcher.call, placed))))
        rest = [split_html(piece.raw, True) for piece, done in zip(sentences, translated, strict=True) if done is None]
        lines = [str(piece.text) for some in rest for piece in some if piece.text is not None]
        alone = (escaped(best.text) for best, *_ in await self._submit(loaded, lines, 1, wait))
        joined = (join_html(some, alone) for some in rest)
        whole = (next(joined) if done is None else done for done in translated)
        return [join_html(some, whole) for some in pieces]

    async def _submit(self, loaded: Loaded, lines: list[str], n_best: int, wait: Wait) -> Found:
        if len(lines) > self.settings.max_lines:
            raise RefusedError(400, f"{len(lines):,} lines in a request; the limit is {self.settings.max_lines:,}")
        different = list(dict.fromkeys(lines))  # a table or a page repeats many texts
        found = await wait(self._accepted(lambda: self._batcher.submit(loaded, different, n_best)))
        by_line = dict(zip(different, found, strict=True))
        return [by_line[line] for line in lines]

    def _accepted(self, submit: Callable[[], Future[T]]) -> Future[T]:
        try:
            return submit()
        except QueueFullError:
            raise RefusedError(429, "too many requests are waiting; try again", retry_after=1) from None
        except StoppedError:
            raise RefusedError(503, "the server is stopping", retry_after=5) from None

    def _limited(self, texts: list[str]) -> list[str]:
        if (number := sum(map(len, texts))) > self.settings.max_characters:
            limit = self.settings.max_characters
            raise RefusedError(400, f"the request has {number:,} characters; the limit is {limit:,}")
        if len(texts) > self.settings.max_lines:
            raise RefusedError(400, f"{len(texts):,} texts in a request; the limit is {self.settings.max_lines:,}")
        return texts

    def _wanted(self, fields: Fields, q: str, source: str, target: str) -> _Wanted:
        """What a request asks for; the names of its fields are given."""
        texts = self._limited(_texts(fields, q))
        codes = self._codes(fields, source, target)
        kind = "text" if fields.get("format") in (None, "") else fields["format"]
        if kind not in ("text", "html"):
            raise RefusedError(400, "format: text or html")
        alternatives = 0 if fields.get("alternatives") is None else fields["alternatives"]
        if isinstance(alternatives, str) and re.fullmatch("[0-9]{1,9}", alternatives):
            alternatives = int(alternatives)
        if isinstance(alternatives, bool) or not isinstance(alternatives, (int, float)) or not 0 <= alternatives < 1e9:
            raise RefusedError(400, "alternatives: a number from 0")
        if alternatives % 1:
            raise RefusedError(400, "alternatives: a whole number")
        direction, detected = self._direction(texts, *codes)
        return _Wanted(texts, direction, detected, kind == "html", int(min(alternatives, 1000)))

    def _codes(self, fields: Fields, source: str, target: str) -> list[str]:
        """The language codes of a request, as they are given."""
        codes = [fields.get(name) for name in (source, target)]
        for name, code in zip((source, target), codes, strict=True):
            if not isinstance(code, str) or not code:
                raise RefusedError(400, f"{name}: missing, or not a language code")
        return [str(code) for code in codes]

    def _directions(self, source: str, target: str) -> list[Direction]:
        """The direction of a request, or those that it may have for ``auto``."""
        if source.lower() != "auto":
            if (direction := self.models.find(source, target)) is None:
                raise RefusedError(400, f"{source[:40]} to {target[:40]} is not supported; GET /languages lists all")
            return [direction]
        found = [one for one in self.models.directions if self.models.find(one.source, target) is one]
        if not found:
            raise RefusedError(400, f"{target[:40]} is not supported; GET /languages lists all")
        return found

    def _direction(self, texts: list[str], source: str, target: str) -> tuple[Direction, dict[str, Any] | None]:
        """The direction of a request, with the language that was detected for ``auto``."""
        directions = self._directions(source, target)
        if source.lower() != "auto":
            return directions[0], None
        sources = [one.source for one in directions]
        try:
            found = self._detect(texts, sources)
        except RefusedError:
            if len(sources) > 1:
                raise
            found = []
        # LibreTranslate, too, translates with a language that it has if it detects none of them.
        best: dict[str, Any] = found[0] if found else {"language": sources[0], "confidence": 0.0}
        direction = self.models.find(best["language"], target)
        assert direction is not None
        return direction, best

    def _detect(self, texts: list[str], languages: list[str]) -> list[dict[str, Any]]:
        """Which of some languages texts may be in: by the package eldc, else by their script if one language has it."""
        try:
            scores = likely_languages("\n".join(texts))
        except DataError:
            script = script_in(texts)
            written = [code for code in languages if script is not None and writing_of(code) == script]
            if len(written) != 1:
                raise RefusedError(501, "detecting languages needs the package eldc; state the language") from None
            scores = {short_code(written[0]): 1.0}
        codes = {short_code(code): code for code in languages}
        found = [(codes[short], score) for short, score in scores.items() if short in codes]
        return [{"language": code, "confidence": round(100 * score, 1)} for code, score in found]


def _with_elements(loaded: Loaded, bare: Bare, translation: str) -> str | None:
    """A translation as HTML, with all elements of its source; None: nobody knows where the model looked."""
    try:
        return loaded.translator.with_elements([bare], [translation], loaded.decode, escaped)[0]
    except UserError:  # an ensemble, another engine, a blank translation, or a text that is too long
        return None


def _texts(fields: Fields, name: str) -> list[str]:
    """The text or the list of texts in a field."""
    value: Any = fields.get(name)
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or value == "" or not all(isinstance(text, str) for text in texts):
        raise RefusedError(400, f"{name}: missing, or not a text or a list of texts")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # JSON can write half a character
        raise RefusedError(400, f"{name}: not valid Unicode") from None
    return texts
