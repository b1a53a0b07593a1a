"""Records whose layout is wrong, and odd ones that are fine."""

from __future__ import annotations

import json

from tests.catalogue.case import Accepted, BadRecord, line, row

Q, A = {"question": "What is it?"}, {"answer": "red"}


def chat(*turns: tuple[str, object], **more: object):
    return row(messages=[{"role": role, "content": content} for role, content in turns], **more)


def llava(*turns: tuple[str, str], **more: object):
    return row(conversations=[{"from": speaker, "value": text} for speaker, text in turns], **more)


BAD = [
    BadRecord(title="JSON with a missing value", reason="bad_json", says=":", make=line(b'{"question": "What?", "answer": }')),
    BadRecord(title="JSON line cut short", reason="bad_json", says=":", make=line(b'{"question": "What?", "answer": "re')),
    BadRecord(title="Python dict instead of JSON", reason="bad_json", says=":", make=line(b"{'question': 'What?', 'answer': 'red'}")),
    BadRecord(title="JSON list instead of an object", reason="bad_record", says="a list", make=line(b'["What?", "red"]')),
    BadRecord(
        title="nesting without end", reason="bad_json", says="", make=line(b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    ),
    BadRecord(title="bytes that are not UTF-8", reason="bad_utf8", says="byte", make=line(b'{"question": "What\xff?", "answer": "red"}')),
    BadRecord(title="half a character", reason="bad_text", says="surrogate", make=row(question="What \ud83d?", **A)),
    BadRecord(title="answer missing", reason="missing_field", says="'answer'", make=row(**Q)),
    BadRecord(title="answer null", reason="missing_field", says="'answer'", make=row(**Q, answer=None)),
    BadRecord(title="field misspelt in one record", reason="missing_field", says="did you mean 'answr'", make=row(**Q, answr="red")),
    BadRecord(title="empty answer", reason="empty_answer", says="empty", make=row(**Q, answer="  \n")),
    BadRecord(title="empty question without a medium", reason="empty_question", says="empty", make=row(question=" ", **A)),
    BadRecord(title="answer is NaN", reason="wrong_type", says="nan", make=line(b'{"question": "What?", "answer": NaN}')),
    BadRecord(title="answer is an object", reason="wrong_type", says="dict", make=row(**Q, answer={"text": "red"})),
    BadRecord(title="answer is true", reason="wrong_type", says="bool", make=row(**Q, answer=True)),
    BadRecord(
        title="more tags than images",
        reason="placeholder_mismatch",
        says="",
        make=row(image=["images/good-0.png"], question="<image><image>?", **A),
    ),
    BadRecord(
        title="fewer tags than images",
        reason="placeholder_mismatch",
        says="",
        make=row(image=["images/good-0.png"] * 2, question="<image>?", **A),
    ),
    BadRecord(title="longer than the budget", reason="too_long", says="", make=row(question="What is it? " * 400, **A)),
    BadRecord(
        title="assistant speaks first",
        reason="role_order",
        says="beginning",
        make=chat(("assistant", "red"), ("user", "What?")),
        source="messages",
    ),
    BadRecord(
        title="two user turns in a row",
        reason="role_order",
        says="user",
        make=chat(("user", "A?"), ("user", "B?"), ("assistant", "red")),
        source="messages",
    ),
    BadRecord(
        title="ends with the user",
        reason="role_order",
        says="ends",
        make=chat(("user", "A?"), ("assistant", "red"), ("user", "B?")),
        source="messages",
    ),
    BadRecord(
        title="unknown role", reason="unknown_role", says="assistant", make=chat(("user", "A?"), ("asistant", "red")), source="messages"
    ),
    BadRecord(title="content null", reason="empty_answer", says="empty", make=chat(("user", "A?"), ("assistant", None)), source="messages"),
    BadRecord(title="no message at all", reason="wrong_type", says="empty", make=row(messages=[]), source="messages"),
    BadRecord(title="messages as text", reason="wrong_type", says="str", make=row(messages="user: A? assistant: red"), source="messages"),
    BadRecord(
        title="unknown content type",
        reason="unknown_field",
        says="image",
        make=chat(("user", [{"type": "imgae", "image": "images/good-0.png"}]), ("assistant", "red")),
        source="messages",
    ),
    BadRecord(
        title="image part without an image",
        reason="placeholder_mismatch",
        says="without its image",
        make=chat(("user", [{"type": "image"}, {"type": "text", "text": "?"}]), ("assistant", "red")),
        source="messages",
    ),
    BadRecord(
        title="image in the answer",
        reason="media_in_answer",
        says="media",
        make=chat(("user", "Draw."), ("assistant", [{"type": "image", "image": "images/good-0.png"}])),
        source="messages",
    ),
    BadRecord(
        title="no turn to train on",
        reason="no_trained_turn",
        says="trained",
        make=row(messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "red", "train": False}]),
        source="messages",
    ),
    BadRecord(
        title="weight below zero",
        reason="wrong_type",
        says="weight",
        make=row(messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "red", "weight": -1}]),
        source="messages",
    ),
    BadRecord(
        title="unknown speaker", reason="unknown_role", says="narrator", make=llava(("narrator", "A?"), ("gpt", "red")), source="sharegpt"
    ),
    BadRecord(
        title="turn without a speaker",
        reason="missing_field",
        says="`from`",
        make=row(conversations=[{"value": "A?"}, {"from": "gpt", "value": "red"}]),
        source="sharegpt",
    ),
    BadRecord(
        title="tag without an image",
        reason="placeholder_mismatch",
        says="1 <image> tag",
        make=llava(("human", "<image>\nA?"), ("gpt", "red"), image=[]),
        source="sharegpt",
    ),
    BadRecord(
        title="image without a tag",
        reason="placeholder_mismatch",
        says="0 <image> tags",
        make=llava(("human", "A?"), ("gpt", "red"), image="images/good-0.png"),
        source="sharegpt",
    ),
]

ODD = [
    Accepted(title="literal <image> without an image", make=row(question="What does <image> mean in HTML?", **A)),
    Accepted(title="the chat's own control words in text", make=row(question="What is <|im_end|>? And <end_of_utterance>?", **A)),
    Accepted(title="a number for an answer", make=row(**Q, answer=42)),
    Accepted(title="CRLF and blanks around a line", make=line(b'  {"question": "What?", "answer": "red"}  \r')),
    Accepted(title="answer that repeats the question", make=row(question="red or blue? red", answer="red")),
    Accepted(
        title="emoji, combining marks and right-to-left text",
        make=row(question="\u0627\u0644\u0644\u0648\u0646? \U0001f469\u200d\U0001f52c e\u0301", answer="\u0623\u062d\u0645\u0631"),
    ),
    Accepted(title="null fields", make=line(json.dumps({"image": None, "question": "What?", "answer": "red", "extra": None}).encode())),
]
