"""Promise: weights cast once give what casting them at every step gives.

The steps themselves are compared with those of the growing cache in tests/decode/test_static_search.py.
"""

import pytest
import torch

from seq2seq.model.captured import with_weights_in


@pytest.mark.parametrize("tie", ["all", "target", "none"])
@torch.inference_mode()
def test_cast_weights_give_what_autocast_gives(make_model, make_pairs, batch_of, tie):
    """Guards against a copy that differs from casting at every step, or that changes the model."""
    model = make_model(tie_embeddings=tie, norm_position="pre").eval()
    batch = batch_of(make_pairs([(4, 6), (9, 3)]))
    before = {name: x.clone() for name, x in model.named_parameters()}
    cast = with_weights_in(torch.bfloat16, model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = (torch.nn.functional.linear(m(batch), m.output_weight) for m in (model, cast))
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, other)
    assert all(torch.equal(x, before[name]) and x.dtype == torch.float32 for name, x in model.named_parameters())
    assert all(m.weight.dtype == torch.bfloat16 for m in cast.modules() if isinstance(m, torch.nn.Linear))
    assert cast.output_weight.dtype == torch.bfloat16
    assert cast.src_embedding.weight is model.src_embedding.weight
    assert cast.tgt_embedding.weight.dtype == torch.float32
