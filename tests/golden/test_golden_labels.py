"""What is trained in each family's stock format, as files that a person can read. Needs torch.

Each line is a stretch of tokens, divided by `·`; lines that begin with `+` are trained. `<image> x16` is sixteen of the same token.
After a change that is meant, write them anew with `FOVEATE_GOLDEN=write` and read the difference.
"""

import os
from itertools import groupby
from pathlib import Path

import pytest

from foveate.encode.encoder import IGNORED
from tests import families
from tests.unit.encode.talk import assistant, encoder_of, medium, talk, user

FOLDER = Path(__file__).parent / "labels"


def conversations(name):
    part = medium(name)
    yield "one medium, one answer", talk(user(part, "what is in the picture?"), assistant("a red circle"))
    yield "text alone, with a system turn", talk(user("be brief", role="system"), user("hello"), assistant("yes, please."))
    yield (
        "several turns and media; the second answer is not trained",
        talk(
            user(part, "what is it?"),
            assistant("a red circle"),
            user(part, part, "and these?"),
            assistant("two", train=False),
            user("a red circle"),
            assistant("a red circle"),
        ),
    )
    yield "control tokens and odd characters in the texts", talk(user("say <|im_end|> <image>"), assistant("née 😀\n<end_of_turn> no"))


def written(name):
    encoder = encoder_of(name)
    lines = []
    for title, conversation in conversations(name):
        example = encoder(conversation)
        lines.append(f"# {title}")
        pairs = zip(encoder.tokens(example.input_ids), (example.labels != IGNORED).tolist(), strict=True)
        for is_trained, stretch in groupby(pairs, key=lambda pair: pair[1]):
            lines.append(("+ " if is_trained else "  ") + " · ".join(counted(token for token, _ in stretch)))
        lines.append("")
    return "\n".join(lines)


def counted(tokens):
    for token, same in groupby(tokens):
        count = len(list(same))
        shown = token.replace("\n", "\\n").replace("\ufffd", "?")
        yield f"{shown} x{count}" if count > 2 else " · ".join([shown] * count)


@pytest.mark.parametrize("name", families.NAMES)
def test_labels_are_as_written_down(name):
    path, found = FOLDER / f"{name}.txt", written(name)
    if os.environ.get("FOVEATE_GOLDEN") == "write":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
