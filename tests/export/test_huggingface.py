"""Promise: a model goes to Hugging Face's format and back unchanged, and translates the same there."""

import json

import pytest
import torch

from seq2seq.config import Config
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.errors import UserError
from seq2seq.export import huggingface, marian
from seq2seq.export.huggingface import Reference, check, convert, translate, usage
from seq2seq.export.importing import import_folder
from seq2seq.model_folder import LoadedModel, build_model, load_model_folder
from tests.export.marian import sentence_lines

TEXTS = [
    *sentence_lines("en", 1040)[1000:],
    "cafe\u0301 x\u00a0y\u00adz \u200b 😀 中文 Ａ\u2028b",
    "  a   b ",
    "We",
    "\tx",
]
EXPORTABLE = {
    "post": {"output_bias": True},
    "pre": {"norm_position": "pre", "activation": "gelu"},
    "target": {"tie_embeddings": "target", "activation": "silu"},
    "none": {"tie_embeddings": "none", "decoder_layers": 1},
}
REFUSED = {
    "rotary": {"positions": "rotary"},
    "learned": {"positions": "learned"},
    "rmsnorm": {"norm": "rmsnorm"},
    "swiglu": {"activation": "swiglu"},
    "num_kv_heads": {"num_kv_heads": 1},
    "attention_window": {"attention_window": 3},
    "ablate": {"ablate": ["scale"]},
    "recurrent": {"architecture": "recurrent"},
    "convolutional": {"architecture": "convolutional"},
    "tie_embeddings": {"norm_position": "pre", "tie_embeddings": "target"},
}


def random_model(kind="bpe", joint=True, **options) -> LoadedModel:
    """A model with a tag, whose translations end at different lengths."""
    shape = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "norm_position": "post"}
    if options.get("architecture", "transformer") == "transformer":
        shape |= {"num_heads": 2, "d_ff": 32, "positions": "sinusoidal"}
    text = {"src": "train.en", "tgt": "train.zh"}
    config = Config.model_validate(
        {
            "run_dir": "run",
            "data": {"train": [text, {**text, "tag": "fra"}], "valid": text, "max_length": 60},
            "tokenizer": {"kind": kind, "joint": joint, "vocab_size": 1000, "character_coverage": 0.9995},
            "model": {
                **{k: v for k, v in shape.items() if "architecture" not in options or k != "norm_position"},
                **options,
            },
            "train": {"max_steps": 1},
        }
    ).all_stated()
    sides = [sentence_lines("en", 800), sentence_lines("zh", 800)]
    models = [
        train_tokenizer(lines, config.tokenizer, ["fra"])[0] for lines in ([[*sides[0], *sides[1]]] if joint else sides)
    ]
    pair = TokenizerPair(models[0], models[-1]).normalising()
    torch.manual_seed(4)
    model = build_model(config, pair)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.4 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn_like(parameter) * spread + ("norm.weight" in name))
        # So that some translations end before their limit, and special tokens and the tag would be chosen, too.
        model.output_weight[: EOS_ID + 2] *= 2.5
    return LoadedModel(model.eval(), config, pair, {"step": "1"})


@pytest.mark.parametrize(("word", "options"), REFUSED.items(), ids=REFUSED)
def test_what_the_format_lacks_is_refused(word, options):
    """Guards against a wrong model in the place of one that cannot be written; the message says what to train."""
    with pytest.raises(UserError, match=word) as error:
        check(random_model(**options))
    assert "; train" in str(error.value)
    assert "configs/exportable.yaml" in str(error.value)


@pytest.mark.parametrize("name", EXPORTABLE)
def test_there_and_back(name, tmp_path):
    """Guards against everything that the two formats write in another way: features, ids, ties, bias, tokenizers.

    The search of the library must find our hypotheses, with our scores, where outputs are cut, too.
    """
    pytest.importorskip("transformers")
    options = EXPORTABLE[name]
    tied = options.get("tie_embeddings", "all") == "all"
    loaded = random_model("bpe" if name == "pre" else "unigram", tied, **options)
    theirs, back = tmp_path / "theirs", tmp_path / "back"
    theirs.mkdir()
    convert(loaded, theirs)

    reference = Reference(theirs)
    sources = [[*ids, EOS_ID] for ids in loaded.tokenizers.src.encode(TEXTS)]
    assert reference.encode(TEXTS) == sources
    assert reference.encode([">>fra<<We"])[0] == [
        *loaded.tokenizers.src.prefix("fra"),
        *loaded.tokenizers.src.encode(["We"])[0],
        EOS_ID,
    ]
    assert reference.encode_targets(["你好。"])[0] == [*loaded.tokenizers.tgt.encode(["你好。"])[0], EOS_ID]
    options = {"beam_size": 3, "length_penalty": 0.0, "max_length_ratio": 0.0, "max_length_offset": 12}
    decode = loaded.config.decode.model_copy(update=options)
    engine = TorchEngine([loaded.model], torch.float32)
    ours = [found[0] for found in engine.search([Source(ids, (0, 0)) for ids in sources], decode)]
    assert 0 < sum(hypothesis.cut for hypothesis in ours) < len(ours)
    found = translate(theirs, sources, 3, 12)
    assert [tuple(one.ids) for one in found] == [hypothesis.ids for hypothesis in ours]
    assert max(abs(one.score - hypothesis.log_prob) for one, hypothesis in zip(found, ours, strict=True)) < 1e-4

    import_folder(theirs, back, lambda line: None)
    again = load_model_folder(back)
    weights, restored = dict(loaded.model.named_parameters()), dict(again.model.named_parameters())
    assert weights.keys() == restored.keys()
    assert all(torch.equal(weights[key], restored[key]) for key in weights)
    assert again.tokenizers.fingerprint == loaded.tokenizers.fingerprint
    assert again.config.model.model_copy(update={"preset": loaded.config.model.preset}) == loaded.config.model


def test_the_folder_works_as_the_card_says(tmp_path):
    """Guards against a folder that needs more than the two lines of its card: wrong classes, lengths or tokens.

    Without options, ``generate`` searches with our settings and never writes a special token.
    """
    transformers = pytest.importorskip("transformers")
    loaded = random_model()
    convert(loaded, tmp_path)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    batch = tokenizer(TEXTS[:8], return_tensors="pt", padding=True)
    found = model.generate(**batch)
    assert not {0, 1, 2, *loaded.tokenizers.tgt.tags.values()} & set(found[:, 1:].flatten().tolist()) - {0}
    assert model.generation_config.num_beams == loaded.config.decode.beam_size
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    ours = loaded.tokenizers.tgt.decode_batch([[i for i in row if i != EOS_ID] for row in found[:, 1:].tolist()])
    assert texts == [text.strip() for text in ours]
    assert ">>fra<< ..." in usage(loaded)


def test_a_wrong_export_is_seen(tmp_path, monkeypatch):
    """Guards against a comparison that would pass with anything: with two features exchanged, translations differ."""
    pytest.importorskip("transformers")

    def wrong(d_model):
        order = marian.feature_order(d_model)
        order[[3, 5]] = order[[5, 3]]
        return order

    loaded = random_model()
    monkeypatch.setattr(huggingface, "feature_order", wrong)
    convert(loaded, tmp_path)
    sources = [[*ids, EOS_ID] for ids in loaded.tokenizers.src.encode(TEXTS)]
    engine = TorchEngine([loaded.model], torch.float32)
    decode = loaded.config.decode.model_copy(update={"beam_size": 2, "length_penalty": 0.0})
    ours = [found[0].ids for found in engine.search([Source(ids, (0, 0)) for ids in sources], decode)]
    assert [tuple(one.ids) for one in translate(tmp_path, sources, 2, 100)] != ours


def test_no_path_of_this_machine(tmp_path):
    """Guards against the names of folders and users in what is given away."""
    pytest.importorskip("transformers")
    convert(random_model(), tmp_path)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "/" not in text.replace("</s>", "")
        json.loads(text)
