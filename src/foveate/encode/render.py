"""Renders conversations with one chat template, in the sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveate.config.suggest import listed, nearest
from foveate.encode.chat import Chat
from foveate.encode.sandbox import FIX, Job, Limits, Sandbox
from foveate.encode.template import has_blocks, own_template, variables
from foveate.errors import FoveateError, TemplateError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

_LOOKED_BACK = 2  # renderings asked for before, that one may be equal to
_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt"})  # by Foveate, so none of the user's


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One rendering that is asked for. `marked`: `{% generation %}` blocks come out between marks."""

    chat: Chat
    generation: bool = False
    marked: bool = False


class Renderer:
    """Renders chats with the processor's template, as `processor.apply_chat_template` does. Picklable.

    `options` are further variables of the template (`enable_thinking`), the same in training and generation. Raises TemplateError
    for one that the template does not look at.
    """

    def __init__(self, processor: ProcessorMixin, *, options: Mapping[str, Any] | None = None, limits: Limits | None = None) -> None:
        self.template = own_template(processor)
        self.options = dict(options or {})
        self.blocks = self.template is not None and has_blocks(self.template)  # whether it has `{% generation %}`
        if self.template is not None:
            self.variables = variables(self.template)
            self.dated = re.search(r"\bstrftime_now\s*\(", self.template) is not None  # it writes the date, which the sandbox holds fixed
            self._check_options()
            values = {**processor.tokenizer.special_tokens_map, **self.options}
            self._sandbox = Sandbox(self.template, values, limits or Limits())

    def __call__(self, chat: Chat, *, where: str = "chat template", generation: bool = False, marked: bool = False) -> str:
        """The rendered text.

        Raises DataError where the template itself refuses the record (`raise_exception`), TemplateError where it fails,
        TemplateStopped where it has to be stopped.
        """
        outcome = self.several([Asked(chat=chat, generation=generation, marked=marked)], where)[0]
        if isinstance(outcome, FoveateError):
            raise outcome
        return outcome

    def several(self, asked: Sequence[Asked], where: str) -> list[str | FoveateError]:
        """The texts, or in place of one what `__call__` would raise."""
        if self.template is None:
            raise TemplateError("the processor has no chat template", where=where, fix=FIX)
        jobs: list[Job] = []
        places: list[int] = []
        for job in map(self._job, asked):  # what is asked twice is rendered once: a conversation plain, and shielded where nothing is
            same = next((place for place in range(max(0, len(jobs) - _LOOKED_BACK), len(jobs)) if jobs[place] == job), len(jobs))
            jobs += [job] if same == len(jobs) else []
            places.append(same)
        texts = self._sandbox.render(jobs, where)
        return [texts[place] for place in places]

    def _job(self, one: Asked) -> Job:
        values = {"messages": one.chat.messages, "tools": one.chat.tools, "documents": None, "add_generation_prompt": one.generation}
        return Job(values=values, marked=one.marked)

    def _check_options(self) -> None:
        for name, value in self.options.items():
            where = f"model.template_options: {name}"
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise TemplateError(f"can't be given to a template: {error}", where=where, fix="give text, a number, a list ...") from error
            if name in _GIVEN:
                raise TemplateError("is what Foveate itself gives the template", where=where, fix="remove it")
            if name not in self.variables:
                near = nearest(name, self.variables)
                raise TemplateError(
                    "the chat template has no such variable" + (f"; did you mean {near!r}?" if near else ""),
                    where=where,
                    fix=f"it looks at {listed(sorted(self.variables - _GIVEN)) or 'none'}",
                )
