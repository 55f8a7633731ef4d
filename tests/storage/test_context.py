from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.errors import UserError
from bayes_clip.model import Context, Projection, Support
from bayes_clip.storage.context import pack_context, unpack_context

TEXT = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
PLAIN = Context(TEXT, ("a", "b", "c"), 20.0)
RICH = replace(
    PLAIN,
    width=7,
    support=Support(torch.ones(2, 7), torch.tensor([0, 2])),
    templates=("a photo of a {}.",),
    projection=Projection(torch.ones(7, 5), torch.zeros(5)),
)


@pytest.mark.parametrize("context", [PLAIN, RICH, replace(RICH, projection=Projection(torch.ones(7, 5)))])
def test_a_context_comes_back_as_it_was(context: Context) -> None:
    tensors, described = pack_context(context)
    again = unpack_context(dict(tensors), json.loads(json.dumps(described)), "cpu")
    repacked, redescribed = pack_context(again)
    assert described == redescribed and tensors.keys() == repacked.keys()
    assert all(torch.equal(tensors[name], repacked[name]) for name in tensors)


def test_an_encoder_is_loaded_again_by_name_and_must_be_the_same() -> None:
    encoder = load_backbone()
    tensors, described = pack_context(replace(PLAIN, encoder=encoder))
    again = unpack_context(dict(tensors), described, "cpu")
    assert again.encoder is not None and again.encoder.fingerprint == encoder.fingerprint
    described["encoder"]["fingerprint"] = "0" * 16
    with pytest.raises(UserError, match=r"its fingerprint is .* and the posterior was fitted with 0000"):
        unpack_context(dict(tensors), described, "cpu")
