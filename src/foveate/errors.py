"""The one family of errors a user may see: what is wrong, where, and how to mend it. The command line exits with 2."""

from __future__ import annotations

from dataclasses import dataclass


class FoveateError(Exception):
    """An error of the user's input or surroundings; anything else that escapes is a bug of ours."""

    def __init__(self, problem: str, *, where: str = "", fix: str = "") -> None:
        self.problem, self.where, self.fix = problem, where, fix
        super().__init__(": ".join(filter(None, [where, problem])) + (f"; {fix}" if fix else ""))

    def __reduce__(self):
        # Exceptions with keyword arguments do not survive pickling between data workers by themselves.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[FoveateError], state: dict) -> FoveateError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (": ".join(filter(None, [state["where"], state["problem"]])) + (f"; {state['fix']}" if state["fix"] else ""),)
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a recipe: `where` is file:line, `path` the dotted key."""

    where: str
    path: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.where, self.path, self.problem])) + (f"; {self.fix}" if self.fix else "")


class RecipeError(FoveateError):
    """Every problem of a recipe at once, a line each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class DataError(FoveateError):
    """A record that can't be used. `reason` is the ledger's stable code, e.g. `image_missing`."""

    def __init__(self, problem: str, *, reason: str, where: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(problem, where=where, fix=fix)


class TemplateError(FoveateError):
    """A chat template that fails, or under which labels can't be proven."""


class TemplateStopped(FoveateError):
    """A chat template that had to be stopped. No TemplateError: nobody knows what it would have written, so no trial of it goes on."""


class ModelError(FoveateError):
    """A model or processor that can't be loaded, or can't be tuned as asked."""


class CheckpointError(FoveateError):
    """A checkpoint that is partial, damaged, or belongs to another run."""
