"""Options of small models, for tests that every architecture must pass."""

import pytest

TRANSFORMERS: dict[str, dict[str, object]] = {
    "paper": {},
    "pre": {"norm_position": "pre"},
    "gelu": {"activation": "gelu"},
    "pre-gelu": {"norm_position": "pre", "activation": "gelu"},
    "marian": {"activation": "silu", "output_bias": True},
    "modern": {
        "norm_position": "pre",
        "norm": "rmsnorm",
        "activation": "swiglu",
        "positions": "rotary",
        "num_kv_heads": 2,
        "attention_window": 3,
    },
    "one-kv-head": {"num_kv_heads": 1, "tie_embeddings": "target"},
    "rotary": {"positions": "rotary"},
    "rotary-window": {"positions": "rotary", "attention_window": 1, "norm": "rmsnorm"},
    "learned": {"positions": "learned", "tie_embeddings": "none", "encoder_layers": 1},
    "deep-encoder": {"encoder_layers": 3, "decoder_layers": 1, "activation": "swiglu"},
    "plain-attention": {"plain_attention": True, "attention_window": 2, "num_kv_heads": 2},
    "without-positions": {"ablate": ["positions"], "norm_position": "pre"},
    "without-residual": {"ablate": ["residual"]},
    "without-norm": {"ablate": ["norm"], "encoder_layers": 1, "decoder_layers": 1},
    "without-scale": {"ablate": ["scale"], "positions": "rotary", "norm_position": "pre"},
    "almost-nothing-left": {"ablate": ["positions", "residual", "scale"], "norm_position": "pre"},
}
RECURRENT: dict[str, dict[str, object]] = {
    "lstm-dot": {"cell": "lstm", "attention": "dot"},
    "gru-additive": {"cell": "gru", "attention": "additive", "tie_embeddings": "target"},
    "rnn-general": {"cell": "rnn", "attention": "general", "encoder_layers": 3, "decoder_layers": 1},
    "lstm-no-attention": {"cell": "lstm", "attention": "none", "bidirectional": False},
    "lstm-additive-fed": {"cell": "lstm", "attention": "additive", "input_feeding": True},
    "gru-dot-fed": {"cell": "gru", "attention": "dot", "input_feeding": True, "tie_embeddings": "none"},
    "rnn-no-attention-fed": {"cell": "rnn", "attention": "none", "input_feeding": True, "encoder_layers": 1},
    "gru-general-one-way": {"cell": "gru", "attention": "general", "bidirectional": False, "decoder_layers": 3},
}
CONVOLUTIONAL: dict[str, dict[str, object]] = {
    "convolutional": {},
    "wide-kernel": {"kernel_width": 5, "encoder_layers": 3, "tie_embeddings": "target"},
    "narrow": {"kernel_width": 3, "decoder_layers": 1, "tie_embeddings": "none", "output_bias": True},
}
RECURRENT = {name: {"architecture": "recurrent", **options} for name, options in RECURRENT.items()}
CONVOLUTIONAL = {name: {"architecture": "convolutional", **options} for name, options in CONVOLUTIONAL.items()}
ALL = TRANSFORMERS | RECURRENT | CONVOLUTIONAL
transformers = pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
all_architectures = pytest.mark.parametrize("options", ALL.values(), ids=ALL)
