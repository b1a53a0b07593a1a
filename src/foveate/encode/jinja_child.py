"""Renders chat templates in a process that has little memory, little time and nothing else; started and fed by sandbox.py.

Run as a program it reads one JSON object for its limits, then one for each task, and answers each with another; every object has
its length in front. A chat template comes with a model from wherever that came from, so it is a stranger's program. Jinja's sandbox keeps
it away from Python's insides; the operating system stops it where it takes too much, whichever operation it finds to do so.
"""

from __future__ import annotations

import datetime
import json
import signal
import struct
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# What stands around the text of a `{% generation %}` block in a marked rendering; see marks.py.
GENERATION_BEGIN, GENERATION_END = "\U00108000", "\U00108001"
_MARKING = "foveate_marks_generation"  # the variable of a rendering that asks for them

# What a template's mistakes end as.
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, NameError, AssertionError, OSError)


class _TooLong(Exception):
    """The output has more characters than it may have."""


def environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates, but for the clock, which each task sets."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    extensions = [_generation_tag(), "jinja2.ext.loopcontrols"]
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": refuse, "strftime_now": lambda form: ""}
    return made


def _generation_tag() -> type:
    """`{% generation %}`: the text inside is what the model writes. transformers counts its characters, here they are marked."""
    import jinja2
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_mark", [jinja2.nodes.ContextReference()]), [], [], body).set_lineno(line)

        def _mark(self, context: Any, caller: Any) -> str:
            text = caller()
            return GENERATION_BEGIN + text + GENERATION_END if context.get(_MARKING) else text

    return Generation


def receive(stream: BinaryIO) -> Any:
    """The next object; None at the stream's end."""
    head = stream.read(4)
    return json.loads(stream.read(struct.unpack(">I", head)[0])) if len(head) == 4 else None


def send(stream: BinaryIO, value: Any) -> None:
    """Writes an object with its length in front."""
    data = json.dumps(value).encode("ascii")
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Serves until the other side closes the stream."""
    into, out = sys.stdin.buffer, sys.stdout.buffer
    limits = receive(into)
    sys.path[:] = limits["path"]
    made, templates, sources = environment(), {}, {}
    _confine(limits["memory_bytes"])
    while (task := receive(into)) is not None:
        _more_time(limits["cpu_s"])
        # The other side sends a template's text once.
        sources[task["key"]] = task["template"] = task["template"] or sources[task["key"]]
        answers = [_answer(made, templates, task, job, limits["characters"]) for job in task["jobs"]]
        _more_time(0)
        send(out, answers)


def _answer(made: Any, templates: dict[str, Any], task: dict[str, Any], job: dict[str, Any], most: int) -> dict[str, str]:
    """{"text"}, {"refused"} where the template raises an exception of its own, {"failed"}, or {"memory"}."""
    import jinja2

    try:
        key = task["key"]
        if key not in templates:
            templates[key] = made.from_string(task["template"])
        made.globals["strftime_now"] = _clock(task["now"])
        return {"text": _text(templates[key], {**task["values"], **job["values"], _MARKING: job["marked"]}, most)}
    except jinja2.TemplateError as error:
        # `raise_exception` in a template raises the plain class: the template says that it does not take such a chat.
        return {"refused" if type(error) is jinja2.TemplateError else "failed": f"{error}"}
    except _TooLong:
        return {"failed": f"it writes more than {most:,} characters"}
    except MemoryError:
        return {"memory": ""}
    except _FAILURES as error:
        return {"failed": f"{type(error).__name__}: {error}"[:2000]}


def _text(template: Any, values: dict[str, Any], most: int) -> str:
    pieces, count = [], 0
    for piece in template.generate(values):
        count += len(piece)
        if count > most:
            raise _TooLong
        pieces.append(piece)
    return "".join(pieces)


def _clock(now: list[int]) -> Any:
    then = datetime.datetime(*now)
    return lambda form: then.strftime(form)


def _confine(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where only the clock of the other side is left
        return
    wanted = {"RLIMIT_AS": memory_bytes, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    for name, most in wanted.items():
        if name in vars(resource):
            resource.setrlimit(vars(resource)[name], (most, most))


def _more_time(cpu_s: float) -> None:
    """Once this process has computed for `cpu_s` more seconds, the system ends it, whatever it is doing. 0: no end."""
    if "setitimer" in vars(signal):
        signal.setitimer(signal.ITIMER_PROF, cpu_s)


if __name__ == "__main__":
    main()
