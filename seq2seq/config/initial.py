"""The section ``init`` of a config: a model to start from, in place of random weights."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from seq2seq.config.keys import OnePath, Section, option

_PART = re.compile(r"(?:(?:encoder|decoder)(?:\.layers\.\d+(?:-\d+)?)?|embeddings|positions)")

# A class body cannot declare ``from``, which is a word of Python.
_From: Any = create_model(  # type: ignore[call-overload]
    "_From",
    __base__=Section,
    **{
        "from": (
            OnePath | None,
            option(
                None,
                "Start from this model, a run folder or a model folder: weights, tokenizer and the section model are "
                "taken from it; optimizer and learning rate begin anew. A relative path starts at the current folder. "
                "null: random weights.",
            ),
        )
    },
)


class InitConfig(_From):  # type: ignore[misc]
    """What a new run starts from."""

    freeze: Annotated[tuple[str, ...], Field(strict=False)] = option(
        (),
        "Parts of the model that keep the weights of init.from: encoder, decoder, embeddings (of source, target and "
        "output), positions (where they are learned), and layers by their numbers from 0, such as encoder.layers.0-2 "
        "or decoder.layers.3.",
    )
    extend_vocabulary: bool = option(
        False,
        "true: train a tokenizer (tokenizer.vocab_size) on the new text, too, and add those of its pieces that the "
        "model lacks: for a new language, script or field. Their vectors start as the mean of the vectors of the "
        "pieces that the model used before.",
    )

    @property
    def source(self) -> Path | None:
        """``from``, under a name that Python allows."""
        path: Path | None = getattr(self, "from")
        return path

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        if self.source is None:
            for key in ("freeze", "extend_vocabulary"):
                if getattr(self, key):
                    yield key, "has no effect without init.from; name the model to start from, or remove this key"
        for name in self.freeze:
            if not _PART.fullmatch(name):
                yield "freeze", f"no part of a model is called {name!r}; {FREEZABLE}"
        if self.extend_vocabulary and "embeddings" in self.freeze:
            yield "freeze", "embeddings cannot be frozen with extend_vocabulary: vectors of new pieces must learn"


FREEZABLE = (
    "the parts are encoder, decoder, embeddings, positions (where they are learned), and layers, such as "
    "encoder.layers.0-2 or decoder.layers.3"
)
