"""Chat templates are rendered by another process (jinja_child.py), which can be stopped whatever a template does.

A limit inside this process would have to know every way to be slow or large: `"a" * 10**10`, a list that doubles itself thirty times, a
format with a width of a billion. The operating system knows none of them and stops all. It works the same in the main thread,
in other threads and in data workers. Limits are of computing time, not of the clock, so a busy machine changes no verdict.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.encode import jinja_child
from foveate.errors import DataError, FoveateError, TemplateError, TemplateStopped

FIX = "give a working template in `model.chat_template` (the text itself, a .jinja file, or a JSON file with `chat_template`)"
# What a template that was rendered to its end may say of a conversation. A TemplateStopped is no such answer: a trial that took it for one
# would wait for the next stop, and the next, and report something else in the end.
REFUSED = (TemplateError, DataError)
_STOPPED = {vars(signal).get(name) for name in ("SIGPROF", "SIGKILL")} - {None}  # by its own timer, or by the system for want of memory
_CLOCK_FACTOR, _CLOCK_SPARE_S = 10, 30  # how much longer than its computing time a rendering may take by the clock
# What `strftime_now` says: a template that writes the date must write the same one on every day, or no run could be resumed.
FIXED_DATE = (2024, 7, 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one task may use up."""

    cpu_s: float = 10.0
    memory_bytes: int = 1 << 30  # of the process in all
    characters: int = 1 << 24  # of one rendering


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rendering: the template's variables, and whether `{% generation %}` blocks are to be marked."""

    values: Mapping[str, Any]
    marked: bool = False


class Sandbox:
    """Renders with one template. Picklable: the process behind it is shared, and each process of Foveate's starts its own."""

    def __init__(self, template: str, values: Mapping[str, Any], limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self.template, self.limits = template, limits
        self._values = dict(values)
        self._key = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()

    def render(self, jobs: Sequence[Job], where: str) -> list[str | FoveateError]:
        """Each job's text, or what is wrong with it: DataError where the template refuses, TemplateError where it fails.

        Raises TemplateStopped where it takes too much time or memory, or its process ended.
        """
        task = {
            "key": self._key,
            "template": self.template,
            "values": self._values,
            "now": FIXED_DATE,
            "jobs": [{"values": dict(job.values), "marked": job.marked} for job in jobs],
        }
        with _lock:
            answers = _child(self.limits).ask(task, where)
        if any("memory" in answer for answer in answers):
            raise TemplateStopped(f"the chat template needs more than {self.limits.memory_bytes >> 20} MiB", where=where, fix=FIX)
        return [self._outcome(answer, where) for answer in answers]

    def _outcome(self, answer: Mapping[str, str], where: str) -> str | FoveateError:
        if "text" in answer:
            return answer["text"]
        if "refused" in answer:
            return DataError(
                f"the chat template refuses the conversation: {answer['refused']}",
                reason="template_refused",
                where=where,
                fix="change the record, or override the template with `model.chat_template`",
            )
        return TemplateError(f"the chat template fails: {answer['failed']}", where=where, fix=FIX)


class _Child:
    """The process, started on first use; a new one after it was stopped."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._sent: set[str] = set()  # keys of the templates that it has

    def ask(self, task: dict[str, Any], where: str) -> list[dict[str, str]]:
        if self._process is None:
            self._start()
        whole = False
        try:
            if task["key"] in self._sent:
                task = {**task, "template": None}
            answers = self._exchange(task, where)
            whole = not any("memory" in answer for answer in answers)
            self._sent.add(task["key"])
            return answers
        finally:
            if not whole:  # it is gone, or an interrupt came between a question and its answer
                self.close()

    def _start(self) -> None:
        # Isolated, with the module path alone of all that this process has: no environment, no terminal, no place in its group.
        command = [sys.executable, "-I", "-S", str(Path(jinja_child.__file__))]
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=kept, start_new_session=True
        )
        self._sent = set()
        path = [str(Path(entry).absolute()) for entry in sys.path if entry]
        limits = {"cpu_s": self._limits.cpu_s, "memory_bytes": self._limits.memory_bytes, "characters": self._limits.characters}
        jinja_child.send(self._process.stdin, {"path": path, **limits})

    def _exchange(self, task: dict[str, Any], where: str) -> list[dict[str, str]]:
        process = self._process
        try:
            jinja_child.send(process.stdin, task)
            wait_s = self._limits.cpu_s * _CLOCK_FACTOR + _CLOCK_SPARE_S
            if not _readable(process, wait_s):
                raise self._stopped(where)
            answers = jinja_child.receive(process.stdout)
        except BrokenPipeError:
            answers = None
        if answers is None:
            raise self._ended(process.wait(), where)
        return answers

    def _ended(self, code: int, where: str) -> TemplateStopped:
        if -code in _STOPPED:
            return self._stopped(where)
        return TemplateStopped(f"the process that renders the chat template ended with {code}", where=where, fix=FIX)

    def _stopped(self, where: str) -> TemplateStopped:
        return TemplateStopped(f"the chat template was not done after {self._limits.cpu_s:g} s of computing", where=where, fix=FIX)

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._release(process)

    def forget(self) -> None:
        """In a process that was forked off: the other's child is not this one's."""
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # nothing to wait for
            self._release(process)

    def _release(self, process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin.raw, process.stdout.raw):  # what is still buffered belongs to nobody
            stream.close()


def _readable(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return bool(selector.select(wait_s))


_lock = threading.Lock()
_children: dict[Limits, _Child] = {}


def _child(limits: Limits) -> _Child:
    return _children.setdefault(limits, _Child(limits))


def _close_all() -> None:
    for child in _children.values():
        child.close()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it
    for child in _children.values():
        child.forget()


atexit.register(_close_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
