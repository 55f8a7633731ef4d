"""What a model program is, and how one is found by name or by path.

A model program is a Python file that defines one subclass of `AdapterModel`: a prior over weights and logits
as a function of weights and inputs. The object itself is the Pyro model that every engine reads. A plain Pyro
function called ``model(inputs, labels=None)`` does as well.

What a program may know of its task is its `Context`; what it takes as inputs, and whether it needs labelled
rows or the encoder itself, it says in class variables.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, ClassVar, Literal

import pyro
import torch
from pyro.distributions import Categorical
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.nn.functional import cross_entropy

from bayes_clip.errors import UserError, nearest
from bayes_clip.recipe import Recipe
from bayes_clip.resources import models_folder

if TYPE_CHECKING:  # open_clip takes seconds to import; most programs do without
    from bayes_clip.backbone.encoder import Backbone

REGISTERED_AS = "bayes_clip.models"

# What a program's inputs are: unit feature rows; features as they left the encoder; what the image tower has
# before its last projection; or the preprocessed pixels, flattened.
Takes = Literal["unit", "raw", "pooled", "pixels"]


@dataclass(frozen=True)
class Support:
    """Labelled rows, for programs that keep a cache of them or their means."""

    inputs: Tensor  # (N, F) as the program takes them
    labels: Tensor  # (N,)


@dataclass(frozen=True)
class Projection:
    """The affine map at the end of an image tower: features are ``pooled @ weight + bias``."""

    weight: Tensor  # (F, D)
    bias: Tensor | None = None  # (D,)


@dataclass(frozen=True)
class Context:
    """What a model program knows of its task. C classes, D features."""

    text_features: Tensor  # (C, D) unit rows; zeros where the task has no text
    class_names: tuple[str, ...]
    logit_scale: float
    has_text: bool = True
    width: int | None = None  # F of its inputs; None: D
    support: Support | None = None  # for programs that use it: the rows that are being learned
    encoder: Backbone | None = None  # for programs that use it
    templates: tuple[str, ...] = ()  # the task's prompts; empty: the encoder's own
    projection: Projection | None = None  # for programs that take pooled features


class AdapterModel:
    """A Pyro model of labels given image features; subclasses define `prior` and `logits`.

    ``model(inputs, labels)`` samples the sites of `prior()`, opens the plate ``data`` over the rows of
    `inputs` (N, F) and observes ``labels ~ Categorical(logits)``; without labels it draws them.
    """

    tunes_prior: ClassVar[bool] = True  # whether `prior_variance` means anything to it
    widest_prior: ClassVar[float] = math.inf  # the largest `prior_variance` that a search may try
    takes: ClassVar[Takes] = "unit"
    uses_support: ClassVar[bool] = False  # whether it reads `context.support`
    uses_encoder: ClassVar[bool] = False  # whether it reads `context.encoder`
    needs_text: ClassVar[bool] = False  # whether it is nothing without text features
    engines: ClassVar[tuple[str, ...] | None] = None  # those it may run under; None: all
    recipe: ClassVar[Recipe | None] = None  # how its authors train it (engine sgd)
    # Site -> its axis that runs over the image features, for `transport` to another encoder. Moving weights w
    # there must move logits by s w·x to first order, s the logit scale. Linear heads need not say.
    feature_axes: ClassVar[Mapping[str, int]] = MappingProxyType({})

    def __init__(self, context: Context, prior_variance: float) -> None:
        self.context = context
        self.prior_variance = prior_variance
        self.text_features = context.text_features
        self.class_names = context.class_names
        self.logit_scale = context.logit_scale

    @property
    def width(self) -> int:
        """F, how many columns its inputs have."""
        return self.context.width or self.text_features.shape[1]

    def prior(self) -> dict[str, TorchDistributionMixin]:
        """Site name -> Gaussian; its event shape is the shape of the weights."""
        raise NotImplementedError

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits (..., N, C) for inputs (N, F); broadcasts over leading dimensions of the weights."""
        raise NotImplementedError

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The weights that its recipe starts from; the prior mean unless the authors start elsewhere."""
        return {name: distribution.mean for name, distribution in self.prior().items()}

    def loss(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """What its recipe minimises: the mean cross-entropy, unless the authors add to it."""
        return cross_entropy(self.logits(weights, inputs), labels)

    def finish(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the weights of its recipe's last step stand for: these, unless the authors scale them."""
        return weights

    def on_classes(self, context: Context) -> AdapterModel:
        """The program for the classes of `context`: weights that stand for no class keep their sense.

        A program whose weights lie along its own classes' texts overrides this, so that they stay where they
        were learned.
        """
        return type(self)(context, self.prior_variance)

    def __call__(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        weights = {name: pyro.sample(name, distribution) for name, distribution in self.prior().items()}
        with pyro.plate("data", len(inputs), dim=-1):
            return pyro.sample("labels", Categorical(logits=self.logits(weights, inputs)), obs=labels)

    def __repr__(self) -> str:
        classes, features = self.text_features.shape
        return f"{type(self).__name__}({classes} classes, {features} features, v={self.prior_variance:g})"


class TwoTowerModel(AdapterModel):
    """A program that adapts an encoder: logits = s F(w) T(w)ᵀ, of image features F and class features T.

    Subclasses define `prior`, `features_of`, `image_states` and `image_features`. The Jacobian of T is taken
    once for each class and batch, however many images there are, and that of F once for each image, however
    many classes.
    """

    @property
    def numbers_per_class(self) -> int:
        """About how many numbers one class leaves behind on its way through the encoder, for memory."""
        return 0

    def features_of(self, weights: dict[str, Tensor], classes: Tensor) -> Tensor:
        """Unit features (..., n, D) of the classes (n,), given by number.

        Broadcasts over leading dimensions of the weights; runs under torch.func, `classes` batched too.
        """
        raise NotImplementedError

    def class_features(self, weights: dict[str, Tensor]) -> Tensor:
        """Unit features (..., C, D) of all classes."""
        return self.features_of(
            weights, torch.arange(len(self.class_names), device=self.text_features.device)
        )

    def image_states(self, inputs: Tensor) -> Tensor:
        """What the part of the image encoder that no weight moves makes of inputs (N, F): (N, ...)."""
        raise NotImplementedError

    def image_features(self, weights: dict[str, Tensor], states: Tensor) -> Tensor:
        """Unit image features (..., N, D) of such states (N, ...)."""
        raise NotImplementedError

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        images = self.image_features(weights, self.image_states(inputs))
        return self.logit_scale * images @ self.class_features(weights).mT


class TextSideModel(TwoTowerModel):
    """A program that adapts the class texts alone: logits = s X T(w)ᵀ, of unit image features X.

    Subclasses define `prior` and `features_of`.
    """

    def image_states(self, inputs: Tensor) -> Tensor:
        return inputs

    def image_features(self, weights: dict[str, Tensor], states: Tensor) -> Tensor:
        return states


class FunctionModel(AdapterModel):
    """A plain Pyro function of (inputs, labels) as a model program, its prior as written there."""

    tunes_prior = False
    function: ClassVar[Callable[..., Tensor]]

    @property
    def name(self) -> str:
        """The function's name."""
        return type(self).function.__name__

    def __call__(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        return type(self).function(inputs, labels)


def as_program(function: type[AdapterModel] | Callable[..., Tensor]) -> type[AdapterModel]:
    """The model program that a plain Pyro function ``function(inputs, labels=None)`` is."""
    if inspect.isclass(function) and issubclass(function, AdapterModel):
        return function
    return type(function.__name__, (FunctionModel,), {"function": staticmethod(function)})


def list_models() -> dict[str, str]:
    """Name -> first line of the docstring of every model program that ships with the package."""
    files = sorted(path for path in models_folder().glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: _summary(path) for path in files}


def find_model(name: str) -> type[AdapterModel]:
    """The model program called `name`, or the one in the file `name` (a path ending in .py).

    Raises:
        UserError: no such program, a file that does not import, or none or several programs in it.
    """
    if name.endswith(".py"):
        return _program(_load(Path(name)), name)
    path = models_folder() / f"{name}.py"
    known = sorted(file.stem for file in models_folder().glob("*.py"))
    if name not in known:
        raise UserError(
            f"--models {name}: no such model program.{nearest(name, known)} Known: {', '.join(known)}; "
            "or give a path to your own .py file"
        )
    return _program(_load(path), name)


def _summary(path: Path) -> str:
    """The first line of a file's docstring. The file is not run: some import open_clip, which is slow."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _load(path: Path) -> ModuleType:
    """Import a file as bayes_clip.models.<stem>, so that nothing generic is ever importable."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such model file; give the path of a .py file or a name from 'bayes-clip models'"
        )
    full_name = f"{REGISTERED_AS}.{path.stem}"
    loaded = sys.modules.get(full_name)
    if loaded is not None and Path(str(loaded.__file__)).resolve() == path.resolve():
        return loaded
    spec = importlib.util.spec_from_file_location(full_name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be read as Python; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[full_name]
        raise UserError(
            f"{path}: does not import ({type(error).__name__}: {' '.join(str(error).split())}); mend the file"
        ) from error
    return module


def _program(module: ModuleType, name: str) -> type[AdapterModel]:
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, AdapterModel) and value.__module__ == module.__name__
    ]
    function = getattr(module, "model", None)
    if not found and inspect.isfunction(function):
        return as_program(function)
    if len(found) != 1:
        raise UserError(
            f"{name}: defines {len(found)} subclasses of AdapterModel; a model program defines exactly one, "
            "or a Pyro function called model(inputs, labels=None)"
        )
    return found[0]


def context_of(
    text_features: Tensor | None, class_names: tuple[str, ...], logit_scale: float, features: int
) -> Context:
    """The context of a task; zero text features where there are none."""
    if text_features is None:
        text_features = torch.zeros(len(class_names), features)
        return Context(text_features, class_names, logit_scale, has_text=False)
    return Context(text_features, class_names, logit_scale)
