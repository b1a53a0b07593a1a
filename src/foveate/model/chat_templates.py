"""Chat templates of families whose checkpoints come without one; used only where the processor has none (`model.chat_template` wins).

They write the prompts that the family was trained with.
"""

from __future__ import annotations

# Florence-2: the processor puts the image and <s> before the question; a task's token stands for a fixed question.
_FLORENCE2_TASKS = {
    "<OCR>": "What is the text in the image?",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
    "<OD>": "Locate the objects with category name in the image.",
    "<DENSE_REGION_CAPTION>": "Locate the objects in the image, with their descriptions.",
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
}

FLORENCE2 = (
    "{%- if messages | length > 2 or messages[0]['role'] != 'user' -%}"
    "{{ raise_exception('Florence-2 takes one question and one answer') }}{%- endif -%}"
    "{%- for message in messages -%}{%- set said = namespace(text='') -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{%- set said.text = said.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}{%- if message['role'] == 'assistant' -%}{{ eos_token + bos_token + said.text + eos_token }}{%- else -%}{{ said.text"
    + "".join(f" | replace('{token}', '{question}')" for token, question in _FLORENCE2_TASKS.items())
    + " }}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{ eos_token }}{%- endif -%}"
)

# T5Gemma 2, which was trained on no chat: a text that ends with a line break, and what follows.
T5GEMMA2 = (
    "{%- if messages | length > 2 or messages[0]['role'] != 'user' -%}"
    "{{ raise_exception('T5Gemma 2 takes one question and one answer') }}{%- endif -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{ bos_token }}{%- else -%}{{ '\n' }}{%- endif -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\n' }}{%- endif -%}"
)

# Voxtral: Mistral's instruction format; a sound stands where it is said.
VOXTRAL = (
    "{{- bos_token -}}{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ '[INST]' }}{%- elif message['role'] == 'system' -%}{{ '[SYSTEM_PROMPT]' }}"
    "{%- elif message['role'] != 'assistant' -%}{{ raise_exception('Voxtral knows system, user and assistant turns only') }}{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'audio' -%}{{ '[BEGIN_AUDIO][AUDIO]' }}{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{ '[/INST]' }}{%- elif message['role'] == 'system' -%}{{ '[/SYSTEM_PROMPT]' }}"
    "{%- else -%}{{ eos_token }}{%- endif -%}{%- endfor -%}"
)
