"""The page of the command line, from the commands' own help."""

from __future__ import annotations

import re

import typer.main
from typer import Context

from bayes_clip.cli import app

NAME = "bayes-clip"


def command_line_page() -> str:
    """Every command: what it does, examples, arguments and options."""
    group = typer.main.get_command(app)
    top = Context(group, info_name=NAME)
    parts = [
        "# The command line",
        f"{group.help} Every command says the same of itself with `--help`.",
    ]
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        context = Context(command, info_name=name, parent=top)
        usage = " ".join([NAME, name, *command.collect_usage_pieces(context)])
        prose, _, examples = (command.help or "").partition("\b\n")
        parts += [f"## {name}", _plain(prose), f"```text\n{usage}\n```"]
        if examples.strip():
            lines = [
                line.strip() for line in examples.splitlines() if line.strip() and line.strip() != "Examples"
            ]
            parts.append("```sh\n" + "\n".join(lines) + "\n```")
        records = [
            record for each in command.get_params(context) if (record := each.get_help_record(context))
        ]
        parts.append(
            "\n".join(["| argument or option | |", "|---|---|", *(_row(*record) for record in records)])
        )
    return "\n\n".join(parts) + "\n"


def _row(name: str, text: str) -> str:
    return f"| `{name.replace('|', ' or ')}` | {_plain(text)} |"


def _plain(text: str) -> str:
    """Help as markdown: rich's markup taken away, and what markdown would read as its own escaped."""
    bare = re.sub(r"\[/?(?:bold|italic|dim)\]", "", text).strip()
    return re.sub(r"([|<>*_\[\]])", r"\\\1", bare)
