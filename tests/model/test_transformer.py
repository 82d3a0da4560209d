"""Promise: the model is the textbook Transformer, whatever shares a batch, and cached steps equal the whole.

Two references: PyTorch's own layers on padded batches, and, for the options those lack, a plain model written below for
one sentence pair at a time with dense masks.

Shapes: ``L`` tokens of a sentence, ``H`` heads, ``E`` width of a head, ``D`` model width.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2seq.data.symbols import BOS_ID
from seq2seq.model.attention import CrossAttention, SelfAttention
from seq2seq.model.transformer import FeedForward, Transformer
from tests.model.variants import TRANSFORMERS, transformers

LENGTHS = [(4, 6), (1, 1), (9, 3), (2, 12), (7, 7)]  # (source, target)


def sum_of_losses(model, batch):
    logits = model.logits(model(batch))
    return F.cross_entropy(logits, batch.labels, reduction="sum")


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], atol=2e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


# -------------------------------------------------------------------------------------------------- the plain reference


def plain_angles(length, width):
    frequency = torch.tensor([10000 ** (-2 * i / width) for i in range(width // 2)])
    return torch.arange(length)[:, None] * frequency


def plain_rotate(x):  # [L, H, E]
    angle = plain_angles(x.size(0), x.size(2))
    turned = torch.view_as_complex(torch.stack(x.chunk(2, dim=-1), dim=-1).contiguous())
    turned = turned * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def plain_attention(q, k, v, mask, rotary):
    """q: [L, H, E]; k, v: [L', G, E]; mask: [L, L'] bool. Returns [L, H * E]."""
    if rotary:
        q, k = plain_rotate(q), plain_rotate(k)
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    scores = torch.einsum("ihe,jhe->hij", q, k) / math.sqrt(q.size(2))
    p = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return torch.einsum("hij,jhe->ihe", p, v).flatten(1)


def plain_norm(module, x):
    if isinstance(module, nn.Identity):
        return x
    if isinstance(module, nn.LayerNorm):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * module.weight


def plain_model(model, src, tgt):
    """Hidden states [L, D] of one sentence pair: decoder input ``tgt`` [L], source ``src`` [L']."""
    c = model.config
    heads, groups, width = c.num_heads, c.num_kv_heads, c.d_model // c.num_heads
    rotary = c.positions == "rotary" and "positions" not in c.ablate
    scale = math.sqrt(width) if "scale" in c.ablate else 1.0

    def embed(table, positions, ids):
        x = table.weight[ids] * math.sqrt(c.d_model)
        if "positions" in c.ablate:
            return x
        if c.positions == "learned":
            x = x + positions.table.weight[: len(ids)]
        elif c.positions == "sinusoidal":
            angle = plain_angles(len(ids), c.d_model)
            x = x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return x

    def attend(x, attention, mask):
        q, k, v = attention.qkv(x).split([heads * width, groups * width, groups * width], dim=-1)
        q, k, v = q.unflatten(1, (heads, width)), k.unflatten(1, (groups, width)), v.unflatten(1, (groups, width))
        return attention.out(plain_attention(scale * q, k, v, mask, rotary))

    def attend_source(x, attention, memory):
        k, v = attention.kv(memory).chunk(2, dim=-1)
        k, v = k.unflatten(1, (groups, width)), v.unflatten(1, (groups, width))
        mask = torch.ones(len(x), len(memory), dtype=torch.bool)
        q = scale * attention.q(x).unflatten(1, (heads, width))
        return attention.out(plain_attention(q, k, v, mask, False))

    def feed(x, module):
        h = module.inner(x)
        if c.activation == "swiglu":
            gate, up = h.chunk(2, dim=-1)
            return module.outer(gate * torch.sigmoid(gate) * up)
        if c.activation == "silu":
            return module.outer(h * torch.sigmoid(h))
        return module.outer(h.clamp(min=0) if c.activation == "relu" else h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))

    def around(residual, x, sublayer, *args):
        kept = 0.0 if "residual" in c.ablate else x
        if c.norm_position == "pre":
            return kept + sublayer(plain_norm(residual.norm, x), *args)
        return plain_norm(residual.norm, kept + sublayer(x, *args))

    def near(length, causal):
        distance = torch.arange(length)[:, None] - torch.arange(length)
        reach = c.attention_window if c.attention_window is not None else length
        return (distance.abs() <= reach) & ((distance >= 0) | (not causal))

    x = embed(model.src_embedding, model.src_positions, src)
    for layer in model.encoder_layers:
        x = around(layer.residuals[0], x, attend, layer.self_attention, near(len(src), False))
        x = around(layer.residuals[1], x, feed, layer.feed_forward)
    memory = plain_norm(model.encoder_norm, x)
    x = embed(model.tgt_embedding, model.tgt_positions, tgt)
    for layer in model.decoder_layers:
        x = around(layer.residuals[0], x, attend, layer.self_attention, near(len(tgt), True))
        x = around(layer.residuals[1], x, attend_source, layer.cross_attention, memory)
        x = around(layer.residuals[2], x, feed, layer.feed_forward)
    return plain_norm(model.decoder_norm, x)


def plain_loss(model, pairs):
    total = torch.zeros(())
    for src, tgt in pairs:
        hidden = plain_model(model, torch.tensor(src), torch.tensor([BOS_ID, *tgt[:-1]]))
        logits = hidden @ model.output_weight.t() + (0.0 if model.output_bias is None else model.output_bias)
        total = total + F.cross_entropy(logits, torch.tensor(tgt), reduction="sum")
    return total


@transformers
def test_against_a_plain_model_one_sentence_at_a_time(make_model, make_pairs, batch_of, options):
    """Guards against any mistake in a layer, and against packing that changes what one sentence alone would give
    (contract 4): the loss and the gradient of every parameter."""
    model, pairs = make_model(**options), make_pairs(LENGTHS)
    found, expected = sum_of_losses(model, batch_of(pairs)), plain_loss(model, pairs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    found_grads = gradients(model, found)
    assert all(grad.abs().sum() > 0 for grad in found_grads.values())
    assert_close(found_grads, gradients(model, expected))


# ----------------------------------------------------------------------------------------------- against torch's layers


class TorchTransformer(nn.Module):
    """The same weights in torch's own layers, on padded batches."""

    def __init__(self, model):
        super().__init__()
        c = model.config
        shape = {"d_model": c.d_model, "nhead": c.num_heads, "dim_feedforward": c.d_ff, "dropout": 0.0}
        how = {"activation": c.activation, "norm_first": c.norm_position == "pre", "batch_first": True}
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(**shape, **how) for _ in model.encoder_layers)
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(**shape, **how) for _ in model.decoder_layers)
        self.table = model.tgt_embedding.weight.detach().clone().requires_grad_()
        pre = c.norm_position == "pre"
        self.norms = nn.ModuleList(nn.LayerNorm(c.d_model) if pre else nn.Identity() for _ in range(2))
        self.copies = {}  # our parameter's name -> the gradient of its copy, once there is one
        pairs = [("encoder_norm", self.norms[0]), ("decoder_norm", self.norms[1])] if pre else []
        for name, layers in (("encoder_layers", self.encoder), ("decoder_layers", self.decoder)):
            for i, layer in enumerate(layers):
                prefix = f"{name}.{i}"
                num_norms = 2 if name == "encoder_layers" else 3
                pairs += [(f"{prefix}.residuals.{n}.norm", getattr(layer, f"norm{n + 1}")) for n in range(num_norms)]
                pairs += [(f"{prefix}.feed_forward.inner", layer.linear1)]
                pairs += [(f"{prefix}.feed_forward.outer", layer.linear2)]
                pairs += [(f"{prefix}.self_attention.out", layer.self_attn.out_proj)]
                self._copy_parts(model, f"{prefix}.self_attention", ["qkv"], layer.self_attn)
                if num_norms == 3:
                    pairs += [(f"{prefix}.cross_attention.out", layer.multihead_attn.out_proj)]
                    self._copy_parts(model, f"{prefix}.cross_attention", ["q", "kv"], layer.multihead_attn)
        ours = dict(model.named_parameters())
        with torch.no_grad():
            for name, module in pairs:
                for kind in ("weight", "bias"):
                    getattr(module, kind).copy_(ours[f"{name}.{kind}"])
                    self.copies[f"{name}.{kind}"] = lambda module=module, kind=kind: getattr(module, kind).grad
        self.copies["tgt_embedding.weight"] = lambda: self.table.grad
        self.width = c.d_model

    def _copy_parts(self, model, prefix, names, attention):
        """Our fused projections, in order, are the rows of torch's ``in_proj``."""
        ours, begin = dict(model.named_parameters()), 0
        for name in names:
            rows = slice(begin, begin + len(ours[f"{prefix}.{name}.weight"]))
            begin = rows.stop
            for kind in ("weight", "bias"):
                joint = getattr(attention, f"in_proj_{kind}")
                with torch.no_grad():
                    joint[rows] = ours[f"{prefix}.{name}.{kind}"]
                self.copies[f"{prefix}.{name}.{kind}"] = lambda joint=joint, rows=rows: joint.grad[rows]

    def embed(self, ids):
        angle = plain_angles(ids.size(1), self.width)
        positions = torch.zeros(ids.size(1), self.width)
        positions[:, 0::2], positions[:, 1::2] = angle.sin(), angle.cos()
        return self.table[ids] * self.width**0.5 + positions

    def forward(self, src, tgt):
        """src, tgt: [B, L] with 0 where there is none. Returns logits [B, L, V]."""
        no_src, no_tgt = src == 0, tgt == 0
        causal = torch.ones(tgt.size(1), tgt.size(1)).triu(1).bool()
        memory = self.embed(src)
        for layer in self.encoder:
            memory = layer(memory, src_key_padding_mask=no_src)
        memory, x = self.norms[0](memory), self.embed(tgt)
        for layer in self.decoder:
            x = layer(x, memory, causal, tgt_key_padding_mask=no_tgt, memory_key_padding_mask=no_src)
        return self.norms[1](x) @ self.table.t()


@pytest.mark.parametrize("name", ["paper", "pre", "gelu", "pre-gelu"])
def test_against_torch_layers_on_padded_batches(make_model, make_pairs, batch_of, name):
    """Guards against departures from the published Transformer, and between packed and padded (contract 4): the loss
    and the gradient of every parameter."""
    model, pairs = make_model(**TRANSFORMERS[name]), make_pairs(LENGTHS)
    theirs = TorchTransformer(model)

    def padded(rows):
        return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

    labels = padded([tgt for _, tgt in pairs])
    logits = theirs(padded([src for src, _ in pairs]), padded([[BOS_ID, *tgt[:-1]] for _, tgt in pairs]))
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=0, reduction="sum")
    found = sum_of_losses(model, batch_of(pairs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    expected.backward()
    assert_close(gradients(model, found), {name: grad() for name, grad in theirs.copies.items()})


@pytest.mark.parametrize("window", [1, 2])
def test_window_bounds_what_a_token_sees(make_model, make_pairs, batch_of, window):
    """Guards against a window one token too wide or narrow: one layer carries a change exactly ``window`` tokens."""
    model = make_model(attention_window=window, encoder_layers=1, decoder_layers=1)
    batch = batch_of(make_pairs([(9, 9)]))
    one_src, one_tgt = model.encode(batch.src), model(batch)
    batch.src.ids[4] ^= 1
    changed = (model.encode(batch.src) != one_src).any(dim=1).nonzero().flatten().tolist()
    assert changed == list(range(4 - window, 5 + window))
    batch.src.ids[4] ^= 1
    batch.tgt.ids[4] ^= 1
    assert (model(batch) != one_tgt).any(dim=1).nonzero().flatten().tolist() == list(range(4, 5 + window))


def test_without_causal_mask_the_answer_is_read(make_model, make_pairs, batch_of):
    """Guards against a lesson that shows nothing: in training, a token then sees those that it must predict."""
    model, batch = make_model(ablate=["causal_mask"]), batch_of(make_pairs([(4, 6)]))
    before = model(batch)
    batch.tgt.ids[5] ^= 1
    assert (model(batch) != before).any(dim=1).all()


def test_without_cross_attention_the_source_is_unknown(make_model, make_pairs, batch_of):
    """Guards against a lesson that shows nothing, and against parameters without a gradient, which no optimizer has to
    expect: without the source, the model is a language model."""
    options = {"ablate": ["cross_attention"], "tie_embeddings": "target"}
    model, pairs = make_model(**options), make_pairs([(4, 6), (5, 3)])
    loss, other = (sum_of_losses(model, batch_of(p)) for p in (pairs, [(pairs[1][0], t) for _, t in pairs]))
    assert torch.equal(loss, other)
    found = gradients(model, loss)
    assert not any(found[name].any() for name in found if name.startswith("encoder"))
    assert found["decoder_layers.0.self_attention.qkv.weight"].any()


@pytest.mark.parametrize("options", [{}, {"activation": "swiglu", "num_kv_heads": 2, "positions": "learned"}])
def test_initialisation_is_the_documented_one(make_model, options):
    """Guards against fused matrices initialised as one (too small), and tables left at torch's standard deviation 1."""
    config = make_model(
        d_model=64, d_ff=160, encoder_layers=1, decoder_layers=1, tie_embeddings="none", **options
    ).config
    model = Transformer(config, 200, 300, max_length=200)
    width = model.config.d_model
    kv = model.config.num_kv_heads * width // model.config.num_heads

    def check_xavier(matrix):
        bound = math.sqrt(6 / sum(matrix.shape))
        assert matrix.abs().max() <= bound
        assert matrix.abs().max() > 0.98 * bound
        assert matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)

    fused = {}
    for module in model.modules():
        if isinstance(module, SelfAttention):
            fused[module.qkv] = [width, kv, kv]
        elif isinstance(module, CrossAttention):
            fused[module.kv] = [kv, kv]
        elif isinstance(module, FeedForward) and module.activation == "swiglu":
            fused[module.inner] = [160, 160]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            for matrix in module.weight.split(fused.get(module, [len(module.weight)])):
                check_xavier(matrix)
            assert not module.bias.any()
        elif isinstance(module, nn.Embedding):
            std = 0.02 if "positions" in name else width**-0.5
            assert module.weight.std().item() == pytest.approx(std, rel=0.07)
        elif isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones(width))
            assert not module.bias.any()
