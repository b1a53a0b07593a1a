"""`foveate allow`."""

from __future__ import annotations

import hashlib

import click

from foveate.config.code import allow, allow_list_path, allowed, revoke
from foveate.errors import FoveateError


@click.command()
@click.argument("spec", required=False, metavar="[FILE | FILE:FUNCTION | PACKAGE.MODULE:FUNCTION]")
@click.option("--list", "show", is_flag=True, help="Show the files that are allowed.")
@click.option("--revoke", "take_back", is_flag=True, help="Take the file off the list.")
def command(spec: str | None, show: bool, take_back: bool) -> None:
    """Let recipes run a Python file of yours.

    Read the file first: it runs with all your rights. Its SHA-256 is recorded, so a changed file must be allowed again.
    """
    if show and (spec is not None or take_back):
        raise FoveateError("--list stands alone", where="foveate allow", fix="leave out the rest")
    if show:
        _list()
    elif spec is None:
        raise FoveateError("names no file", where="foveate allow", fix="write: foveate allow my_adapter.py")
    elif take_back:
        click.echo(f"revoked {revoke(spec)}")
    else:
        path = allow(spec)
        click.echo(f"allowed {path}")
        click.echo(f"sha256  {allowed()[path]}")


def _list() -> None:
    files = allowed()
    for path, digest in sorted(files.items()):
        state = "gone" if not path.is_file() else "" if hashlib.sha256(path.read_bytes()).hexdigest() == digest else "changed since"
        click.echo(f"{digest}  {path}" + (f"  ({state})" if state else ""))
    if not files:
        click.echo(f"nothing is allowed ({allow_list_path()})")
