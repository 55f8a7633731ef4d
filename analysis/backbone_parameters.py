"""Count the parameters of open_clip's architectures on torch's meta device: bayes_clip/backbone's table.

    python analysis/backbone_parameters.py

Takes some five minutes on one core, and no network: those whose text tower comes from Hugging Face are left
out. Written to bayes_clip/backbone/parameter_counts.json, which `bayes-clip backbones` reads.
"""

from __future__ import annotations

import json

import open_clip

from bayes_clip.backbone.catalogue import COUNTS, count_parameters, digest
from bayes_clip.progress import track
from bayes_clip.storage.files import written_whole


def main() -> None:
    models = {}
    for name in track(open_clip.list_models(), "counting parameters"):
        config = open_clip.get_model_config(name)
        count = count_parameters(name)
        if count is not None:
            models[name] = {"config": digest(config), "parameters": count}
    table = {"open_clip": open_clip.__version__, "models": models}
    with written_whole(COUNTS) as temporary:
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in models.items())
        temporary.write_text(
            f'{{"open_clip": {json.dumps(table["open_clip"])}, "models": {{\n{lines}\n}}}}\n'
        )


if __name__ == "__main__":
    main()
