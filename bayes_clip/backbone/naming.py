"""What the user calls a backbone and its weights, as open_clip knows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from bayes_clip.backbone.lora import CONFIG as ADAPTER_CONFIG
from bayes_clip.backbone.lora import is_adapter
from bayes_clip.errors import UserError, nearest

HUB, FOLDER = "hf-hub:", "local-dir:"  # names by which open_clip finds config and weights together
FOLDER_CONFIG = "open_clip_config.json"
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
# in the order in which open_clip prefers them
WEIGHT_FILES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)

# Names this package taught to open_clip, with the file of each: the registry there is one for all.
_registered: dict[str, Path] = {}


@dataclass(frozen=True)
class Weights:
    """Where weights come from: one of open_clip's tags or a file, or neither (what a hub name brings)."""

    tag: str | None = None
    file: Path | None = None
    adapter: Path | None = None  # a LoRA folder, merged into them
    is_own: bool = False  # the file is the folder's own, and need not be named

    def __str__(self) -> str:
        """What --pretrained has to say to get them again, from any folder."""
        file = "" if self.file is None or self.is_own else str(self.file.resolve())
        return (self.tag or file) + ("" if self.adapter is None else f"+{self.adapter.resolve()}")


def register_config(path: Path) -> str:
    """Teach open_clip the architecture in the JSON file `path`; returns its name, the file's stem.

    Raises:
        UserError: no such file, no open_clip config, or a name that another model bears already.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such open_clip config; check the path")
    config = _json(path)
    if not isinstance(config, dict) or any(key not in config for key in CONFIG_KEYS):
        raise UserError(f"{path}: not an open_clip model config; it needs {', '.join(CONFIG_KEYS)}")
    name, resolved = path.stem, path.resolve()
    if name in open_clip.list_models() and _registered.get(name) != resolved:
        raise UserError(f"{path}: open_clip knows another model by the name '{name}'; rename the file")
    if name not in _registered:
        open_clip.add_model_config(resolved)
        _registered[name] = resolved
    return name


def open_clip_name(name: str) -> str:
    """The name by which open_clip finds what the user named: a listed one, ``hf-hub:...``, ``local-dir:...``.

    A JSON config is registered; a folder, or the config in it, becomes ``local-dir:`` with its full path.

    Raises:
        UserError: no such architecture, config or folder.
    """
    if name.startswith(HUB):
        if name.removeprefix(HUB).count("/") != 1:
            raise UserError(f"--backbone {name}: write {HUB}ORGANISATION/MODEL, as the hub names it")
        return name
    folder = _folder(name)
    if folder is not None:
        read_folder_config(folder)
        return f"{FOLDER}{folder.resolve()}"
    if name.endswith(".json"):
        return register_config(Path(name))
    name = name.replace("/", "-")
    known = open_clip.list_models()
    if name not in known:
        hint = nearest(name, known) or " See: bayes-clip backbones"
        raise UserError(f"--backbone {name}: open_clip has no such model, and there is no such folder.{hint}")
    return name


def read_folder_config(folder: Path) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a model folder: ``model_cfg``, and ``preprocess_cfg`` where it has it.

    Raises:
        UserError: no such folder or file, or one that describes no model.
    """
    if not folder.is_dir():
        raise UserError(f"--backbone {FOLDER}{folder}: no such folder; check the path")
    file = folder / FOLDER_CONFIG
    if not file.is_file():
        kind = " It is a LoRA folder: --pretrained BASE+FOLDER." if is_adapter(folder) else ""
        raise UserError(
            f"--backbone {folder}: has no {FOLDER_CONFIG}; name a folder of an open_clip model.{kind}"
        )
    config = _json(file)
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model, dict) or any(key not in model for key in CONFIG_KEYS):
        raise UserError(f'{file}: no open_clip config; it needs "model_cfg" with {", ".join(CONFIG_KEYS)}')
    return config


def find_weights(name: str, pretrained: str | None) -> Weights:
    """The weights of a model that `open_clip_name` named, by what --pretrained says.

    A tag, a file, a LoRA folder where the model brings its weights, or ``TAG+FOLDER``, ``FILE+FOLDER``.

    Raises:
        UserError: nothing named where something must be, or what is named is not there.
    """
    base, adapter = _split(pretrained)
    if base is not None and Path(base).is_file():
        return Weights(file=Path(base), adapter=adapter)
    if name.startswith((HUB, FOLDER)):
        if base is not None:
            raise UserError(f"--pretrained {base}: no such file; {name} brings its own weights, leave it out")
        if name.startswith(HUB):
            return Weights(adapter=adapter)
        return Weights(file=_weights_in(Path(name.removeprefix(FOLDER))), adapter=adapter, is_own=True)
    tags = open_clip.list_pretrained_tags_by_model(name)
    there_are = f"tags of {name}: {', '.join(tags)}" if tags else f"there are no tags for {name}"
    if base is None and adapter is not None:
        raise UserError(
            f"--pretrained {pretrained}: a LoRA folder, and its base is not named; write TAG+{pretrained} or "
            f"FILE+{pretrained} ({there_are})"
        )
    if base is None:
        raise UserError(f"--backbone {name}: no weights named; add --pretrained TAG or FILE ({there_are})")
    if not open_clip.is_pretrained_cfg(name, base):
        raise UserError(
            f"--pretrained {base}: neither a tag nor a checkpoint file ({there_are}).{nearest(base, tags)}"
        )
    return Weights(tag=base, adapter=adapter)


def _folder(name: str) -> Path | None:
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER))
    path = Path(name)
    if path.name == FOLDER_CONFIG:
        return path.parent
    looks_like_a_path = (
        name.startswith((".", "/", "~")) or name.endswith("/") or (path / FOLDER_CONFIG).is_file()
    )
    return path.expanduser() if looks_like_a_path and not name.endswith(".json") else None


def _split(pretrained: str | None) -> tuple[str | None, Path | None]:
    """What stands before and behind the last ``+``; a folder alone is an adapter."""
    if pretrained is None or Path(pretrained).is_file():
        return pretrained, None
    base, plus, folder = pretrained.rpartition("+")
    if plus and not Path(pretrained).is_dir():
        if not is_adapter(Path(folder)):
            raise UserError(
                f"--pretrained {pretrained}: behind the + belongs a LoRA folder, and '{folder}' has no "
                f"{ADAPTER_CONFIG}; name a folder that PEFT saved"
            )
        return base or None, Path(folder)
    if not Path(pretrained).is_dir():
        return pretrained, None
    if not is_adapter(Path(pretrained)):
        raise UserError(
            f"--pretrained {pretrained}: a folder without {ADAPTER_CONFIG}; give a checkpoint file, a LoRA "
            f"folder, or a whole model by --backbone {pretrained}"
        )
    return None, Path(pretrained)


def _weights_in(folder: Path) -> Path:
    """The one file of weights in a model folder, or that which open_clip prefers by name."""
    named = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if named is None and len(found) != 1:
        which = ", ".join(file.name for file in found[:3]) or "none"
        raise UserError(f"{folder}: one file of weights belongs there ({which}); name it {WEIGHT_FILES[0]}")
    return named or found[0]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no JSON ({error}); give an open_clip model config") from None
