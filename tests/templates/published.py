"""The templates of this folder, each with a tokenizer that has the family's special tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from foveate.encode.encoder import Encoder
from foveate.encode.template import set_chat_template
from foveate.model.tiny.base import GEMMA
from tests import families

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Published:
    """One template. `special` are special tokens, `added` further ones that the tokenizer knows and decodes (`<think>`)."""

    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    image: str | None = None  # the image's placeholder; None for a template without images
    added: tuple[str, ...] = ()
    tools: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    end: str = ""  # what ends a turn, if it is not `eos`
    call_end: str = ""  # what ends a turn that calls a tool, if it is another one


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_VL = (*_CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
_LLAMA4 = ("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_start|>", "<|python_end|>", "<|image|>")
_GEMMA4 = (
    "<bos>", "<eos>", "<pad>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>", "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image|>", "<|audio|>", "<|video|>",
)  # fmt: skip
_MISTRAL = (
    "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]",
)  # fmt: skip
_DEEPSEEK = (
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
)  # fmt: skip
_COMMAND = (
    "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_ACTION|>",
    "<|END_ACTION|>", "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>", "<|IMG_PATCH|>",
)  # fmt: skip
_QWEN3 = dict(special=_CHATML, eos="<|im_end|>", added=_QWEN_TAGS, tools=True, file="qwen3")
_SENTENCE = dict(bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>")

PUBLISHED: dict[str, Published] = {
    "qwen2_5": Published(_CHATML, eos="<|im_end|>", added=_QWEN_TAGS[:4], tools=True),
    "qwen3": Published(**_QWEN3),
    "qwen3_no_thinking": Published(**_QWEN3, options={"enable_thinking": False}),
    "qwen2_5_vl": Published(_QWEN_VL, eos="<|im_end|>", image="<|image_pad|>"),
    "qwen3_vl": Published(_QWEN_VL, eos="<|im_end|>", image="<|image_pad|>", added=_QWEN_TAGS[:4], tools=True),
    "llama3_1": Published(_LLAMA3, eos="<|eot_id|>", bos="<|begin_of_text|>", tools=True),
    "llama4": Published(_LLAMA4, eos="<|eot|>", bos="<|begin_of_text|>", image="<|image|>", tools=True),
    "gemma3": Published((*GEMMA, "<start_of_image>"), eos="<end_of_turn>", bos="<bos>", image="<start_of_image>"),
    "gemma4": Published(
        _GEMMA4, eos="<eos>", bos="<bos>", image="<|image|>", tools=True, end="<turn|>", call_end="<|tool_response>"
    ),
    "mistral_v3": Published(_MISTRAL, eos="</s>", bos="<s>", tools=True),
    "mistral_v7": Published(_MISTRAL, eos="</s>", bos="<s>"),
    "pixtral": Published(_MISTRAL, eos="</s>", bos="<s>", image="[IMG]"),
    "phi4": Published((*_CHATML, "<|im_sep|>"), eos="<|im_end|>"),
    "phi4_multimodal": Published(
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), eos="<|endoftext|>", end="<|end|>"
    ),
    "smolvlm": Published(("<|im_start|>", "<end_of_utterance>", "<image>"), eos="<end_of_utterance>", image="<image>"),
    "internvl": Published((*_CHATML, "<IMG_CONTEXT>"), eos="<|im_end|>", image="<IMG_CONTEXT>"),
    "deepseek_v3": Published(_DEEPSEEK, **_SENTENCE, tools=True),
    "deepseek_r1": Published(_DEEPSEEK[:4], **_SENTENCE, added=("<think>", "</think>")),
    "glm4": Published(
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        eos="<|endoftext|>",
        tools=True,
        end="<|user|>",
        call_end="<|observation|>",
    ),
    "command_a": Published(_COMMAND, eos="<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>", image="<|IMG_PATCH|>", tools=True),
    "granite3": Published(
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"), eos="<|end_of_text|>", tools=True
    ),
    "smollm3": Published(_CHATML, eos="<|im_end|>", added=("<think>", "</think>")),
}


def source(name: str) -> str:
    """The template's text."""
    return (FOLDER / f"{PUBLISHED[name].file or name}.jinja").read_text("utf-8")


@lru_cache
def processor(name: str) -> Any:
    """A processor with the template: Qwen2.5-VL's for images, with the family's own placeholder; its tokenizer is made here."""
    about = PUBLISHED[name]
    made = families.processor("qwen2_5_vl")
    spare = "<|image_pad|>", "<|video_pad|>"
    words = tuple(dict.fromkeys((*about.special, *spare)))
    made.tokenizer = families.tokenizer(words, eos=about.eos, pad=about.special[0], bos=about.bos)
    made.tokenizer.add_tokens(list(about.added))
    made.image_token = about.image or spare[0]
    made.image_token_id, made.video_token_id = made.tokenizer.convert_tokens_to_ids([made.image_token, spare[1]])
    set_chat_template(made, source(name))
    return made


@lru_cache
def encoder(name: str) -> Encoder:
    """The encoder of that processor."""
    return Encoder(processor(name), options=PUBLISHED[name].options)
