"""Conversations that the published templates are tried on, and how an encoded one is written down."""

from __future__ import annotations

import json

from foveate.encode.encoder import IGNORED, Encoder
from foveate.types import Conversation, Example, Message, ToolCall
from tests.unit.encode.talk import assistant, picture, talk, user

TOOL = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
WRAPPED = json.dumps({"type": "function", "function": TOOL})
CALL = ToolCall(name="weather", arguments='{"city": "Oslo", "days": 2}', id="a0b1c2d3e")
OTHER = ToolCall(name="time", id="f4g5h6i7j")


def calling(*calls: ToolCall, said: str = "", train: bool = True, reasoning: str = "") -> Message:
    """An assistant turn that calls tools."""
    parts = assistant(said).parts if said else ()
    return Message(role="assistant", parts=parts, tool_calls=calls, train=train, reasoning=reasoning)


def result(text: str, call: ToolCall = CALL) -> Message:
    """A tool's turn."""
    return Message(role="tool", parts=user(text).parts, tool_call_id=call.id, name=call.name)


def thinking(thought: str, said: str) -> Message:
    """An answer with its reasoning in a key of its own."""
    return Message(role="assistant", parts=assistant(said).parts, reasoning=thought)


def with_tools(*messages: Message) -> Conversation:
    """A conversation that defines a tool."""
    return Conversation(messages=messages, tools=(WRAPPED,))


HI, AND = user("Hi"), user("And?")
TALKS: dict[str, Conversation] = {
    "one turn": talk(HI, assistant("Hello.")),
    "several turns, the first not trained": talk(
        HI, assistant("Hello.", train=False), AND, assistant("Fine."), user("So?"), assistant("Bye.")
    ),
    "a system turn": talk(user("Be brief.", role="system"), HI, assistant("Hello.")),
    "an image": talk(user(picture(56, 56), "What?"), assistant("A wall.")),
    "reasoning": talk(HI, thinking("Hm.", "Hello."), AND, thinking("So.", "Bye.")),
    "reasoning in the content": talk(
        HI, assistant("<think>\nHm.\n</think>\n\nHello."), AND, assistant("<think>\nSo.\n</think>\n\nBye.")
    ),
    "a call and its result": with_tools(user("Sky?"), calling(CALL), result('{"sky": "clear"}'), assistant("Clear.")),
    "text beside two calls": with_tools(
        user("Sky?"), calling(CALL, OTHER, said="Let me see."), result("clear"), result("9:00", OTHER), assistant("Clear.")
    ),
    "reasoning before a call and behind its result": with_tools(
        user("Sky?"), calling(CALL, reasoning="Look."), result("clear"), thinking("Good.", "Clear.")
    ),
    "a call at the end": with_tools(user("Sky?"), calling(CALL)),
    "two assistant turns in a row": talk(HI, assistant("Hello."), assistant("Again.")),
}


def written(encoder: Encoder, example: Example) -> str:
    """The example's whole text, trained stretches in brackets."""
    pieces, on = [], False
    for token, label in zip(encoder.tokens(example.input_ids), example.labels.tolist(), strict=True):
        if (label != IGNORED) != on:
            on = not on
            pieces.append("⟦" if on else "⟧")
        pieces.append(token)
    return "".join([*pieces, "⟧" if on else ""])
