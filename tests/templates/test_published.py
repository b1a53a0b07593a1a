"""Published templates: what each writes, and what of it is trained, as text that a person can read.

The files `<name>.txt` hold the whole rendering of every conversation of talks.py, with what is trained in brackets, or the error. They were
compared with what the families' model cards and documents say; after a change that is meant, write them anew with `FOVEATE_GOLDEN=write`
and read the difference. Needs torch.
"""

import os
import re

import pytest

from foveate.encode.encoder import IGNORED
from foveate.encode.sandbox import FIXED_DATE
from foveate.errors import FoveateError
from tests.templates import published
from tests.templates.published import FOLDER, PUBLISHED
from tests.templates.talks import TALKS, written


def sheet(name):
    encoder = published.encoder(name)
    lines = [f"# note: {note}" for note in encoder.notes if "takes only text" not in note]
    for title, conversation in TALKS.items():
        if title == "an image" and PUBLISHED[name].image is None:
            continue
        try:
            found = written(encoder, encoder(conversation))
        except FoveateError as error:
            found = f"{type(error).__name__}: {error.problem}"
        lines += [f"# {title}", re.sub(r"(<[^<>]+>|\[IMG\])(\1)+", lambda run: f"{run[1]}x{len(run[0]) // len(run[1])}", found), ""]
    return "\n".join(lines)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_and_trained(name):
    path, found = FOLDER / f"{name}.txt", sheet(name)
    if os.environ.get("FOVEATE_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def chat_of(encoder, conversation):
    return encoder._prover._chat(conversation)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rendering_is_the_one_of_transformers(name):
    encoder, processor = published.encoder(name), published.processor(name)
    options, dates = PUBLISHED[name].options, []
    if "strftime_now" in processor.chat_template:  # transformers writes today's
        import datetime

        today, fixed = datetime.datetime.now(), datetime.datetime(*FIXED_DATE)
        dates = [(today.strftime(form), fixed.strftime(form)) for form in ("%d %b %Y", "%B %d, %Y")]
    for conversation in TALKS.values():
        chat = chat_of(encoder, conversation)
        for generation in (False, True):
            try:
                found = encoder._render(chat, generation=generation)
            except FoveateError:
                continue
            wanted = processor.apply_chat_template(chat.messages, tools=chat.tools, add_generation_prompt=generation, **options)
            for today, fixed in dates:
                wanted = wanted.replace(today, fixed)
            assert found == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_ids_are_those_of_the_plain_rendering(name):
    encoder, processor = published.encoder(name), published.processor(name)
    for conversation in TALKS.values():
        try:
            example = encoder(conversation)
        except FoveateError:
            continue
        if conversation.media:
            continue
        text = encoder._render(chat_of(encoder, conversation)) + encoder._facts.turns.closer(conversation)
        assert example.input_ids.tolist() == processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoder.length(conversation).tokens == len(example.input_ids)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_trained_last_is_what_a_prompt_asks_for(name):
    encoder = published.encoder(name)
    for title, conversation in TALKS.items():
        try:
            example = encoder(conversation)
        except FoveateError:
            continue
        prompt = encoder.prompt(conversation).input_ids.tolist()
        ids, labels = example.input_ids.tolist(), example.labels.tolist()
        if name == "deepseek_r1":  # its prompt opens a thought, its conversations keep none; a note says so
            assert any("differs from how it opens" in note for note in encoder.notes)
            continue
        if ids[: len(prompt)] != prompt:  # earlier turns look different where the conversation goes on
            assert name.startswith("qwen3") and title.startswith(("several", "reasoning", "two")), title
            continue
        assert labels[len(prompt)] != IGNORED, title
        assert labels[len(prompt) - 1] == IGNORED or title.startswith("two"), title  # there the turn before ends at that place


def test_there_are_enough():
    assert len(PUBLISHED) >= 12
    assert {path.stem for path in FOLDER.glob("*.jinja")} == {about.file or name for name, about in PUBLISHED.items()}
