"""Captions: a subject, a medium and true clauses, in short, middling and long sentences.

Only things that a picture shows are named (plus filler that carries no content); long sentences put the
subject first or last, so that positions up to the end of the context are trained with a class name on either
side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TokenCounter = Callable[[str], int]
LONGEST = 30  # tokens; start and end tokens make it 32

MEDIA = (
    "photo", "picture", "image", "drawing", "photograph", "snapshot", "sketch", "rendering", "scan",
    "thumbnail",
    "illustration", "icon", "figure", "graphic", "view", "copy", "sample", "example", "print", "display",
    "bitmap", "artwork", "depiction", "visual", "shot", "portrait", "cartoon", "painting", "stamp", "diagram",
)  # fmt: skip
ARTICLES = ("a {}", "one {}", "this {}", "the {}", "another {}", "my {}", "an example {}")
QUALITIES = (
    "good", "nice", "plain", "simple", "small", "square", "typical", "single", "ordinary", "new", "random",
    "short",
    "digital", "synthetic", "clean", "cropped", "centered", "basic", "beautiful", "strange", "bad", "great",
    "cool", "rough", "old", "quick",
    "interesting", "careful", "careless", "cheap", "modern",
)  # fmt: skip
LINKS = (
    "of",
    "showing",
    "with",
    "that shows",
    "depicting",
    "containing",
    "which contains",
    "presenting",
    "of",
)
FILLERS = (
    "for a test", "taken from a collection", "nothing else is visible", "made by a computer program",
    "in the frame", "for an exercise", "from a data set", "seen from the front", "with no other object",
    "as part of a series", "made for learning", "shown to a student", "it is easy to recognize",
    "stored in a file", "without any text around it", "can you tell what it is", "found on a page",
    "this is what we see here", "one of many similar samples", "chosen at random", "please look at it",
    "a machine should know it", "there is only one object", "shown on a screen", "cut out of a larger page",
)  # fmt: skip
LASTS = (
    "showing {}", "it is {}", "the subject is {}", "we can see {}", "the answer is {}", "what you see is {}",
    "which contains {}", "with {}", "and it shows {}", "here is {}", "namely {}", "of {}", "{}",
)  # fmt: skip


def pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def medium(rng: np.random.Generator, qualities: tuple[str, ...]) -> str:
    """ "a photo", "one blurry picture", ..."""
    words = pick(rng, MEDIA)
    if rng.uniform() < 0.4:
        words = f"{pick(rng, qualities + QUALITIES)} {words}"
    article = "a {}" if rng.uniform() < 0.6 else pick(rng, ARTICLES)
    phrase = article.format(words)
    if phrase[:2] == "a " and phrase[2] in "aeiou":
        phrase = "an " + phrase[2:]
    return phrase


def _joined(first: str, clauses: list[str], rng: np.random.Generator) -> str:
    text = first
    for clause in clauses:
        text += (", " if rng.uniform() < 0.6 else " ") + clause
    return text


def _filled(
    head: str, tail: str, clauses: list[str], goal: int, count: TokenCounter, rng: np.random.Generator
) -> str:
    """Head, as many clauses as come near `goal` tokens, tail."""
    pool = [*clauses, *rng.permutation(FILLERS)[:6].tolist()]
    kept: list[str] = []
    for clause in pool:
        text = ", ".join(part for part in (head, *kept, clause, tail) if part)
        if count(text) <= goal:
            kept.append(clause)
    text = _joined(head, kept, rng)
    return f"{text}, {tail}" if tail else text


def compose(
    subjects: tuple[str, ...],
    clauses: tuple[tuple[str, ...], ...],
    qualities: tuple[str, ...],
    count: TokenCounter,
    rng: np.random.Generator,
) -> str:
    """One caption of at most LONGEST tokens.

    `subjects` are ways to name the thing; `clauses` are facts, each with its ways of saying it; `qualities`
    are adjectives that are true of the picture.
    """
    subject = pick(rng, subjects)
    facts = [pick(rng, wordings) for wordings in clauses]
    facts = [facts[index] for index in rng.permutation(len(facts))]
    form = rng.uniform()
    if form < 0.14:
        text = subject
    elif form < 0.40:
        text = f"{medium(rng, qualities)} {pick(rng, LINKS)} {subject}"
    elif form < 0.66:
        opening = subject if rng.uniform() < 0.4 else f"{medium(rng, qualities)} {pick(rng, LINKS)} {subject}"
        text = _joined(opening, facts[: int(rng.integers(1, 3))], rng)
    elif form < 0.80:
        text = _filled(
            f"{medium(rng, qualities)} {pick(rng, LINKS)} {subject}",
            "",
            facts,
            int(rng.integers(16, LONGEST)),
            count,
            rng,
        )
    else:
        tail = pick(rng, LASTS).format(subject)
        text = _filled(medium(rng, qualities), tail, facts, int(rng.integers(14, LONGEST)), count, rng)
    if count(text) >= LONGEST:
        text = subject
    return text + ("." if rng.uniform() < 0.5 else "")
