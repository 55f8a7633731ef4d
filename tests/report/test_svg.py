from __future__ import annotations

import matplotlib.pyplot as plt

from bayes_clip.report.svg import svg_text


def test_the_ground_of_a_hatch_is_fainter_than_its_lines() -> None:
    figure, axes = plt.subplots()
    axes.bar([0], [1], hatch="///", color="#d55e00")
    pattern = svg_text(figure).split("<pattern", 1)[1].split("</pattern>", 1)[0]
    assert 'fill-opacity="0.3"' in pattern.split("<path", 1)[0]
    assert "fill-opacity" not in pattern.split("<path", 1)[1]
    plt.close(figure)
