"""Templates that want too much: each is stopped, in every kind of thread and process, and the next one renders. No torch."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from foveate.encode import sandbox
from foveate.encode.sandbox import FIXED_DATE, Job, Limits, Sandbox
from foveate.errors import DataError, FoveateError, TemplateError, TemplateStopped

SMALL = Limits(cpu_s=0.2, memory_bytes=256 << 20, characters=1 << 20)
GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
CHAT = {"messages": [{"role": "user", "content": "Hi <b> ☃ \ud83d"}]}
GROW = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x END }}"


def render(template, values=None, limits=SMALL, **more):
    found = Sandbox(template, {}, limits).render([Job(values={**CHAT, **(values or {})}, **more)], "t.jinja")[0]
    if isinstance(found, FoveateError):
        raise found
    return found


def grow(start, step, end=""):
    return GROW.replace("START", start).replace("STEP", step).replace("END", end)


LOOP = "{% for i in range(99999) %}"
HOSTILE = {
    "a long string": "{{ 'a' * 10**10 }}",
    "a long string that is thrown away": "{% set x = 'a' * 10**10 %}{{ x | length }}",
    "a long constant": "{% if ('a' | center(10**10)) | length %}x{% endif %}",
    "a wide format": "{{ '%10000000000d' % 1 }}",
    "another": "{{ '{:>10000000000}'.format(1) }}",
    "padding": "{{ 'a'.ljust(10**10) }}",
    "tabs": "{{ ('\t' * 10**6).expandtabs(10**6) }}",
    "an indented text": "{{ 'a\nb' | indent(10**10) }}",
    "replacing": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "joining": "{{ ('b' * 10**5).join('a' * 10**6) }}",
    "doubling": grow("'a'", "ns.x ~ ns.x"),
    "a list that holds itself twice": grow("[1]", "[ns.x, ns.x]"),
    "the same as JSON": grow("[1]", "[ns.x, ns.x]", "| tojson"),
    "two such lists compared": grow("[1]", "[ns.x, ns.x]", "== 1") + grow("[2]", "[ns.x, ns.x]") + "{{ ns.x }}",
    "a huge number": "{{ 10**(10**10) }}",
    "squares": grow("10", "ns.x * ns.x"),
    "a huge list": "{{ ([0] * 10**10) | length }}",
    "a batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
    "nested loops": LOOP * 4 + "{% endfor %}" * 4,
    "loops over long ranges": "{% set ns = namespace(n=0) %}" + LOOP * 3 + "{% set ns.n = ns.n + 1 %}" + "{% endfor %}" * 3,
    "macros that call each other": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a long output": LOOP * 2 + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + "{% endfor %}" * 2,
    "an output of one piece": "{{ 'a' * 2**22 }}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_takes_too_much_is_stopped(what):
    stopped = "was not done after|needs more than 256 MiB|writes more than|fails: (OverflowError|ValueError)"
    with pytest.raises((TemplateStopped, TemplateError), match=stopped) as caught:
        render(HOSTILE[what])
    assert caught.value.where == "t.jinja" and caught.value.fix
    assert (type(caught.value) is TemplateStopped) == ("not done" in str(caught.value) or "MiB" in str(caught.value))
    assert render(GOOD) == "user: Hi <b> ☃ \ud83d\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ [].__class__.__base__.__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ (''|attr('__class__')).x }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '{0.__class__}'.format_map({'0': 1}) }}",
        "{{ self._TemplateReference__context.environment.x }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ namespace(__class__=1).__class__.__mro__ }}",
        "{% set x = messages.append(1) %}{{ messages | length }}",
        "{% include 'a' %}",
        "{% import 'a' as b %}",
        "{% extends 'a' %}",
        "{% debug %}",
        "{{ range(10**9) | list }}",
        "{{ open('/etc/passwd') }}",
    ],
)
def test_what_reaches_out_is_refused(template):
    with pytest.raises(TemplateError, match="the chat template fails"):
        render(template)


def test_the_process_has_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("FOVEATE_TEST_SECRET", "x" * 20)
    limits = Limits(cpu_s=0.7)
    Sandbox(GOOD, {}, limits).render([Job(values=CHAT)], "t")
    process = sandbox._children[limits]._process.pid
    assert b"FOVEATE_TEST_SECRET" not in Path(f"/proc/{process}/environ").read_bytes()
    assert os.getsid(process) != os.getsid(0)  # Ctrl-C on our terminal is none of its business


def test_several_renderings_in_one_go():
    template = "{% if messages[0].content == 'no' %}{{ raise_exception('never') }}{% endif %}{{ messages[0].content }}{{ extra }}"
    sandbox = Sandbox(template, {"extra": "!"})
    jobs = [Job(values={"messages": [{"content": text}]}) for text in ("a", "no", "b")]
    first, refused, last = sandbox.render(jobs, "t")
    assert (first, last) == ("a!", "b!")
    assert isinstance(refused, DataError) and refused.reason == "template_refused" and "never" in refused.problem


def test_as_transformers_sets_it_up():
    assert render("{{ {'a': 'é<', 'b': [1, 2.5, none, true]} | tojson }}") == '{"a": "é<", "b": [1, 2.5, null, true]}'
    assert render("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}") == '{\n  "a": 2,\n  "b": 1\n}'
    assert render("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "1"
    assert render("{{ strftime_now('%d %b %Y') }}") == f"{FIXED_DATE[2]} Jul {FIXED_DATE[0]}"
    assert render("{{ dict(a=1).a }}{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}") == "12"
    assert render("  {% if true %}\nx\n  {% endif %}\n") == "x\n"


def test_mistakes_are_told():
    for template, problem in (("{{ 1 / 0 }}", "ZeroDivisionError"), ("{{ x.y.z }}", "undefined"), ("{{ x | nothing }}", "No filter named")):
        for _ in range(2):  # the second time the process has the template already
            with pytest.raises(TemplateError, match=problem):
                render(template)


def test_in_threads():
    found = []

    def work(number):
        for _ in range(5):
            found.append(render(GOOD, {"messages": [{"role": str(number), "content": "x"}]}) == f"{number}: x\n")
        with pytest.raises(TemplateStopped, match="not done after"):
            render(HOSTILE["nested loops"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 15


def _in_child(sandbox, queue):
    try:
        queue.put([sandbox.render([Job(values=CHAT)], "t")[0], os.getpid()])
        Sandbox(HOSTILE["nested loops"], {}, SMALL).render([Job(values=CHAT)], "t")
    except TemplateStopped as error:
        queue.put(str(error))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_in_data_workers(way):
    sandbox = Sandbox(GOOD, {}, SMALL)
    before = sandbox.render([Job(values=CHAT)], "t")[0]
    context = multiprocessing.get_context(way)
    queue = context.Queue()
    worker = context.Process(target=_in_child, args=(sandbox, queue), daemon=True)  # daemonic, as data workers are
    worker.start()
    assert queue.get(timeout=60)[0] == before and "not done after" in queue.get(timeout=60)
    worker.join(60)
    assert worker.exitcode == 0
    assert sandbox.render([Job(values=CHAT)], "t")[0] == before  # the parent's own process still answers


def test_an_interrupt_leaves_no_answer_behind():
    sandbox = Sandbox(GOOD, {}, SMALL)
    sandbox.render([Job(values=CHAT)], "t")
    endless = Sandbox(HOSTILE["nested loops"], {}, Limits(cpu_s=20))

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            endless.render([Job(values=CHAT)], "t")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert Sandbox("{{ 7 }}", {}, Limits(cpu_s=20)).render([Job(values=CHAT)], "t") == ["7"]


def test_the_process_goes_with_ours():
    code = (
        "import os, signal, sys\nfrom foveate.encode.sandbox import *\nfrom foveate.encode import sandbox\n"
        "Sandbox('{{ 1 }}', {}).render([Job(values={})], 't')\n"
        "print(next(iter(sandbox._children.values()))._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    child = int(done.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}") or b"\0" not in Path(f"/proc/{child}/cmdline").read_bytes():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process that renders outlived the one that it rendered for")


def test_answers_are_plain_json(tmp_path):
    text = json.dumps([1, {"a": "x"}])
    assert render("{{ messages | tojson }}", {"messages": json.loads(text)}) == text
