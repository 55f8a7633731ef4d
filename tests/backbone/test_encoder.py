from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from bayes_clip.backbone import batched, encoder
from bayes_clip.backbone.batched import ImageEncoder
from bayes_clip.backbone.encoder import Backbone, load_backbone, middle_part
from bayes_clip.backbone.prefetch import NAME
from bayes_clip.errors import UserError


def random_pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = random.integers(5, 60, (count, 2))
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_a_backbone_says_what_it_is(tiny: Backbone) -> None:
    assert (tiny.name, tiny.feature_dim, tiny.vocabulary) == ("tiny_clip", 8, None)
    assert tiny.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert repr(tiny).startswith("Backbone(tiny_clip ")
    assert tiny.fingerprint in repr(tiny)


def test_the_encoder_is_frozen(tiny: Backbone) -> None:
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_features_are_those_of_open_clip_in_order(tiny: Backbone, tiny_weights: object) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms("tiny_clip", pretrained=str(tiny_weights))
    model.eval()
    pictures = random_pictures(5)
    with torch.no_grad():
        expected = torch.cat([model.encode_image(preprocess(picture)[None]) for picture in pictures])
    features = tiny.encode_images(pictures, batch_size=2)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_pictures_are_taken_one_by_one(tiny: Backbone) -> None:
    assert tiny.encode_images(iter(random_pictures(3)), batch_size=1).shape == (3, 8)


def test_byte_tensors_are_pictures_too(tiny: Backbone) -> None:
    pictures = random_pictures(3)
    tensors = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    assert torch.equal(tiny.encode_images(tensors), tiny.encode_images(pictures))


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_encode_bit_for_bit_as_their_own_pixels_do(
    workers: int, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "workers_for", lambda device: workers)
    pictures = random_pictures(11)
    pixels = torch.stack([tiny.prepare(picture) for picture in pictures])
    with torch.inference_mode():
        batches = [part.contiguous(memory_format=torch.channels_last) for part in pixels.split(4)]
        expected = torch.cat([tiny.model.encode_image(batch) for batch in batches])
    assert torch.equal(tiny.encode_images(pictures, batch_size=4), expected)
    assert torch.equal(tiny.encode_images(iter(pictures), batch_size=4), expected)
    assert torch.equal(tiny.encode_images(pixels, batch_size=4), expected)
    assert torch.equal(tiny.encode_pixels(list(pixels), batch_size=4), expected)


def test_features_are_copied_from_the_device_after_several_batches(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "BATCHES_PER_COPY", 2)
    pictures = random_pictures(9)
    expected = torch.cat([tiny.encode_images([picture]) for picture in pictures])
    torch.testing.assert_close(tiny.encode_images(pictures, batch_size=2), expected, rtol=1e-5, atol=1e-6)


def test_pixels_of_another_size_are_refused_by_number(tiny: Backbone) -> None:
    message = r"picture 1: pixels \(3, 8, 8\), and tiny_clip takes \(3, 16, 16\)"
    with pytest.raises(UserError, match=message):
        tiny.encode_pixels([torch.zeros(3, 16, 16), torch.zeros(3, 8, 8)])
    with pytest.raises(UserError, match=r"picture 0: pixels \(3, 8, 8\)"):
        tiny.encode_images(torch.zeros(2, 3, 8, 8))


def test_an_encoder_that_fails_leaves_no_thread_behind(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageEncoder, "_batch", interrupted)
    monkeypatch.setattr(encoder, "workers_for", lambda device: 2)
    with pytest.raises(KeyboardInterrupt):
        tiny.encode_images(random_pictures(30), batch_size=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


def test_a_cpu_encodes_in_float32(tiny: Backbone) -> None:
    assert tiny.precision == "float32"
    assert replace(tiny, half=True).precision == "float16"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_differs_by_the_rounding_of_half_precision(tiny_config: Path, tiny_weights: Path) -> None:
    pictures = random_pictures(50)
    slow = load_backbone(str(tiny_config), str(tiny_weights)).encode_images(pictures)
    fast = load_backbone(str(tiny_config), str(tiny_weights), "cuda").encode_images(pictures, batch_size=16)
    assert fast.device.type == "cpu" and fast.dtype == torch.float32
    torch.testing.assert_close(fast, slow, rtol=0.02, atol=0.02)


def test_nothing_encodes_to_nothing(tiny: Backbone) -> None:
    assert tiny.encode_images([]).shape == (0, 8)
    assert tiny.encode_texts([]).shape == (0, 8)


def test_prompts_in_batches_are_prompts_one_by_one(tiny: Backbone) -> None:
    prompts = [f"a photo of {number} owls" for number in range(300)]
    together = tiny.encode_texts(prompts)
    one_by_one = torch.cat([tiny.encode_texts([prompt]) for prompt in (prompts[0], prompts[299])])
    assert together.shape == (300, 8)
    torch.testing.assert_close(together[[0, 299]], one_by_one, rtol=1e-5, atol=1e-6)


def test_text_features_average_unit_features_over_templates(tiny: Backbone) -> None:
    templates = ("a photo of a {}.", "the {} in a drawing.")
    features = tiny.text_features(["cat", "sea otter"], templates)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    prompts = ["a photo of a sea otter.", "the sea otter in a drawing."]
    raw = tiny.encode_texts(prompts).double()
    mean = (raw / raw.norm(dim=1, keepdim=True)).mean(dim=0)
    torch.testing.assert_close(features[1], (mean / mean.norm()).float(), rtol=1e-5, atol=1e-6)


def test_templates_are_the_backbones_own_unless_given(tiny: Backbone) -> None:
    own = replace(tiny, default_templates=("drawing of {}",))
    assert torch.equal(own.text_features(["cat"]), tiny.text_features(["cat"], ["drawing of {}"]))
    assert not torch.equal(own.text_features(["cat"]), tiny.text_features(["cat"]))


def test_prompts_with_unknown_words_are_warned_about(tiny: Backbone) -> None:
    knowing = replace(tiny, vocabulary=frozenset(["a", "red", "circle"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        knowing.encode_texts(["A red circle."])
    with pytest.warns(UserWarning, match="never saw 'blue', 'cat' in training"):
        knowing.encode_texts(["a blue circle", "a cat", "a blue cat"])


def test_a_backbone_without_vocabulary_knows_every_word(tiny: Backbone) -> None:
    assert tiny.unknown_words(["xyzzy"]) == []


@pytest.mark.parametrize("size", [(4000, 2), (2, 4000), (4001, 3)])
def test_hair_thin_pictures_are_cut_to_their_middle(size: tuple[int, int], tiny: Backbone) -> None:
    picture = Image.new("RGB", size, "red")
    middle = middle_part(picture)
    assert 7 <= max(middle.size) / min(middle.size) <= 9
    assert tiny.encode_images([picture]).isfinite().all()


def test_ordinary_pictures_are_left_whole() -> None:
    picture = Image.new("RGB", (80, 10))
    assert middle_part(picture) is picture


def test_cutting_keeps_the_middle() -> None:
    picture = Image.new("RGB", (100, 2), "blue")
    picture.paste("red", (42, 0, 58, 2))
    assert middle_part(picture).getcolors() == [(32, (255, 0, 0))]


def test_pocket_clip_takes_no_other_weights() -> None:
    with pytest.raises(UserError, match="pocket_clip has its own weights"):
        load_backbone("pocket_clip", "openai")
