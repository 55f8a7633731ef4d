"""coop, coop_class, contcoop and lora: zero-shot at the prior mean, and adapters that learn."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from small_problems import assert_near
from tiny_clip import tiny_backbone
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.resolve import load_task
from bayes_clip.data.task import Task, few_shot
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.model import Context, TwoTowerModel, find_model
from bayes_clip.settings import FitSettings

PROGRAMS = ("coop", "coop_class", "contcoop", "lora")
NAMES = ("zero", "a green two", "square")
TEMPLATES = ("a photo of a {}.", "{}")
PIXELS = torch.randn(4, 3 * 16 * 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def made(name: str, templates: tuple[str, ...] = TEMPLATES) -> tuple[TwoTowerModel, Backbone]:
    backbone = tiny_backbone()
    backbone.model.double()
    context = Context(torch.zeros(3, 8).double(), NAMES, 20.0, encoder=backbone, templates=templates)
    model = find_model(name)(context, 0.3)
    assert isinstance(model, TwoTowerModel)
    return model, backbone


def inputs_of(model: TwoTowerModel, backbone: Backbone) -> Tensor:
    return PIXELS if model.takes == "pixels" else images_of(backbone)


def images_of(backbone: Backbone) -> Tensor:
    return normalize(backbone.model.encode_image(PIXELS.reshape(-1, 3, 16, 16)), dim=-1)


def texts_of(backbone: Backbone) -> Tensor:
    tokens = backbone.tokenize([TEMPLATES[0].replace("{}", name) for name in NAMES])
    return normalize(backbone.model.encode_text(tokens), dim=-1)


def mean_of(model: TwoTowerModel) -> dict[str, Tensor]:
    return {name: distribution.mean for name, distribution in model.prior().items()}


def draws_of(model: TwoTowerModel, *sizes: int) -> dict[str, Tensor]:
    torch.manual_seed(4)
    return {name: distribution.sample(torch.Size(sizes)) for name, distribution in model.prior().items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_prior_mean_is_zero_shot_with_the_first_template(name: str) -> None:
    model, backbone = made(name)
    wanted = 20 * images_of(backbone) @ texts_of(backbone).mT
    assert_near(model.logits(mean_of(model), inputs_of(model, backbone)), wanted, 1e-9)


@pytest.mark.parametrize("name", PROGRAMS)
def test_draws_of_the_weights_broadcast_and_say_something_else(name: str) -> None:
    model, backbone = made(name)
    inputs, weights = inputs_of(model, backbone), draws_of(model, 2, 3)
    together = model.logits(weights, inputs)
    assert together.shape == (2, 3, 4, 3)
    one = {site: values[1, 2] for site, values in weights.items()}
    assert_near(together[1, 2], model.logits(one, inputs))
    assert float((together - model.logits(mean_of(model), inputs)).abs().max()) > 0.01
    every = torch.func.vmap(lambda values: model.logits(values, inputs))
    assert_near(every({site: values[1] for site, values in weights.items()}), together[1])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_gradient_step_from_the_start_lowers_the_loss(name: str) -> None:
    model, backbone = made(name)
    inputs, labels = inputs_of(model, backbone), torch.tensor([0, 1, 2, 0])
    start = model.start(torch.Generator().manual_seed(0))
    slopes, loss = torch.func.grad_and_value(lambda weights: model.loss(weights, inputs, labels))(start)
    moved = {site: values - 1e-7 * slopes[site] for site, values in start.items()}
    assert float(model.loss(moved, inputs, labels)) < float(loss)


def test_class_contexts_are_shared_ones_where_they_agree_and_move_their_own_class() -> None:
    shared, own = made("coop")[0], made("coop_class")[0]
    contexts = draws_of(shared)["contexts"]
    expected = shared.class_features({"contexts": contexts})
    repeated = contexts.expand(3, -1, -1).clone()
    assert_near(own.class_features({"contexts": repeated}), expected)
    repeated[1, :, 0] += 0.1
    changed = (own.class_features({"contexts": repeated}) - expected).abs().amax(-1)
    assert bool(changed[1] > 1e-4) and not changed[[0, 2]].any()


def test_learned_contexts_are_what_the_text_encoder_makes_of_their_embeddings() -> None:
    """Other words as contexts give open_clip's features of a prompt with those words."""
    model, backbone = made("coop")
    table, tokens = backbone.model.token_embedding.weight, backbone.tokenize(["one two red big"])[0, 1:5]
    wanted = backbone.model.encode_text(backbone.tokenize([f"one two red big {name}." for name in NAMES]))
    assert_near(model.class_features({"contexts": table[tokens]}), normalize(wanted, dim=-1))


def test_low_rank_changes_are_those_of_the_merged_maps() -> None:
    model, backbone = made("lora")
    weights = draws_of(model)
    merged = copy.deepcopy(backbone.model)
    for tower, block in (("image", merged.visual.transformer), ("text", merged.transformer)):
        change = weights[f"{tower}_up"] @ weights[f"{tower}_down"] / 2
        block.resblocks[-1].attn.in_proj_weight += change.flatten(0, 1)
    changed = replace(backbone, model=merged)
    assert_near(model.logits(weights, PIXELS), 20 * images_of(changed) @ texts_of(changed).mT)


def test_the_loss_of_contcoop_distils_zero_shot() -> None:
    model, backbone = made("contcoop")
    inputs, labels, weights = images_of(backbone), torch.tensor([0, 1, 2, 0]), draws_of(model)
    plain = model.logits(weights, inputs)
    zero_shot = (20 * inputs @ texts_of(backbone).mT).softmax(-1)
    distance = (zero_shot * (zero_shot.log() - plain.log_softmax(-1))).sum(-1).mean()
    assert_near(model.loss(weights, inputs, labels), cross_entropy(plain, labels) + distance)
    assert_near(model.loss(mean_of(model), inputs, labels), cross_entropy(zero_shot.log(), labels))


def test_fused_contexts_depend_on_the_class_name_alone_and_on_all_of_it() -> None:
    """The attention by hand, for one class of two words."""
    model, backbone = made("contcoop")
    weights = draws_of(model)
    table, tokens = backbone.model.token_embedding.weight, backbone.tokenize(["a green two"])[0, 1:4]
    names, contexts = table[tokens], weights["contexts"]
    cosines = torch.nn.functional.cosine_similarity(contexts[:, None], names[None], dim=-1)
    fused = contexts + weights["gates"] * ((4 * cosines).softmax(-1) @ names)
    coop, _ = made("coop")
    assert_near(model.class_features(weights)[1], coop.class_features({"contexts": fused})[1])


@pytest.mark.parametrize("name", ["coop", "coop_class", "contcoop"])
def test_a_template_without_words_has_nothing_to_learn(name: str) -> None:
    with pytest.raises(UserError, match=r"--templates '\{\}': has no words that all classes share"):
        made(name, ("{}",))


@pytest.fixture(scope="module")
def digits() -> Task:
    whole = few_shot(load_task("digits"), 2, 0)
    some = torch.arange(0, len(whole.query_labels), 10)
    pictures = whole.query_pictures
    return replace(
        whole,
        query_features=whole.query_features[some],
        query_labels=whole.query_labels[some],
        query_norms=None if whole.query_norms is None else whole.query_norms[some],
        query_pictures=None if pictures is None else pictures.pick(some),
    )


@pytest.mark.parametrize("engine", ["ekf", "laplace"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_digits_are_learned_without_loss(name: str, engine: str, digits: Task) -> None:
    def accuracy(settings: FitSettings) -> float:
        said = fit(digits, settings).posterior.predict(digits.query_rows)
        return float((said.probabilities.argmax(-1) == digits.query_labels).double().mean())

    fitted = accuracy(FitSettings(model=name, engine=engine, prior_variance=0.3, predictive="plug_in"))
    assert fitted >= accuracy(FitSettings(model=name, engine="zero_shot")) - 0.03
