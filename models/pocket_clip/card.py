"""The measured tables of CARD.md, between its markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _zero_shot_table(rows: dict[str, dict[str, float]], title: str) -> list[str]:
    lines = [f"| {title} | accuracy | mean confidence |", "|---|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {_percent(row['accuracy'])} | {_percent(row['mean_confidence'])} |"
        for name, row in rows.items()
    ]
    return [*lines, ""]


def _head_table(heads: dict[str, Any], zero_shot: dict[str, Any]) -> list[str]:
    shots = list(next(iter(heads.values()))["features"])
    columns = " | ".join(f"{k}-shot" for k in shots)
    lines = [f"| real digits | input | zero-shot | {columns} |", "|---|---|---|" + "---|" * len(shots)]
    for variant, inputs in heads.items():
        for name, scores in inputs.items():
            zero = _percent(zero_shot[variant]["accuracy"]) if name == "features" else ""
            cells = " | ".join(
                f"{100 * scores[k]['mean']:.1f} ± {100 * scores[k]['standard_deviation']:.1f} %"
                for k in shots
            )
            lines.append(f"| {variant} | {name} | {zero} | {cells} |")
    return [*lines, ""]


def _adaptation(scores: dict[str, dict[str, float]]) -> list[str]:
    def spread(name: str) -> str:
        row = scores[name]
        return f"{100 * row['mean']:.1f} ± {100 * row['standard_deviation']:.1f} %"

    def least(name: str) -> str:
        return f"least {100 * scores[name]['least']:.1f}"

    return [
        "bayes_clip's default fit with four labels a class on upright real digits (the same five draws): "
        f"{spread('features')}.",
        f"Zero-shot on the same rows {spread('zero_shot')}, the same head on raw pixels {spread('pixels')}.",
        f"Gain by draw over zero-shot {spread('gain_over_zero_shot')} ({least('gain_over_zero_shot')}),",
        f"over pixels {spread('gain_over_pixels')} ({least('gain_over_pixels')}).",
        "",
    ]


def measured_tables(measurements: dict[str, Any]) -> str:
    """The tables as Markdown."""
    digits, speed, words = measurements["digits"], measurements["speed"], measurements["words"]
    lines = [
        *_zero_shot_table(digits["zero_shot"], "real digits, zero-shot, word class names, all templates"),
        *_zero_shot_table(digits["prompts"], "real upright digits, other prompts"),
        "Logistic regression on the features, and the same on the raw 8 x 8 pixels (mean and standard",
        "deviation over 5 draws of the support set; everything not drawn is the query set):",
        "",
        *_head_table(digits["linear_head"], digits["zero_shot"]),
        *_adaptation(digits["adapted_4_shot"]),
        *_zero_shot_table(measurements["rendered"], "freshly rendered pictures, zero-shot"),
        f"Vocabulary: {words['words']} words. Two words it never saw ('cat', 'dog') have cosine "
        f"{words['cosine_of_cat_and_dog']:.3f}. Logit scale {measurements['logit_scale']:.1f}.",
        "",
        f"Speed: {speed['images_per_second']:.0f} pictures a second through the image tower on one thread of "
        f"{speed['processor']}, other work running beside it; PyTorch {measurements['torch']}.",
    ]
    return "\n".join(lines)


def write_card(measurements: dict[str, Any], path: Path) -> None:
    """Replace what stands between the card's markers."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{measured_tables(measurements)}\n{END}{after}", encoding="utf-8")
