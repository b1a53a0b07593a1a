"""`convert`: what is read back is what went in, for every format and both targets; and nothing half is ever left."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foveate.cli.main import main
from foveate.data.convert import MANIFEST, Conversion, convert, ledger_path, unweighted
from foveate.data.media.blob import open_blob
from foveate.data.media.frames import frame_list
from foveate.data.mixture import build_mixture
from foveate.errors import DataError, FoveateError
from foveate.types import Conversation, Text, Video, kind_of
from tests.unit.data.build import RULES, clip, corner_picture, encoded, jsonl, m4a, noise_picture, qa_rows, section, sound

TARGETS = ("parquet", "webdataset")


def media(folder: Path) -> None:
    """One file of each kind, some with a name that says another format than they have."""
    (folder / "1.jpg").write_bytes(encoded(corner_picture(), "JPEG"))
    (folder / "2.jpg").write_bytes(encoded(noise_picture(9, 7), "PNG"))
    (folder / "3.webp").write_bytes(encoded(corner_picture(20, 10), "WEBP"))
    (folder / "1.wav").write_bytes(sound())
    m4a(folder / "1.m4a")
    clip(folder / "1.mp4")
    (folder / "frames").mkdir()
    for number in range(3):
        (folder / f"frames/{number + 8}.png").write_bytes(encoded(noise_picture(9, 9).rotate(90 * number), "PNG"))


def asked(question, answer="b", **more):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]}


ROWS = {
    "qa": [
        {"image": "1.jpg", "question": "what?", "answer": "a", "system": "Be brief."},
        {"image": ["2.jpg", "1.jpg"], "question": "<image> or <image>?", "answer": "b", "system": None},
        {"image": None, "question": "no <image> here", "answer": "ü\n\"x\"", "system": None},
    ],
    "answers": [{"image": "3.webp", "question": "how many?", "answers": ["one", "1", "one"]}],
    "messages": [
        asked([{"type": "image", "image": "1.jpg", "max_pixels": 50}, {"type": "text", "text": "a"}, {"type": "text", "text": "<image>"}]),
        asked("What is <image>?\n<image>\n"),
        asked([{"type": "text", "text": "t"}, {"type": "text", "text": ""}, {"type": "text", "text": "<audio>"}], train=True),
        {
            "messages": [
                {"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "x", "train": False},
                {"role": "tool", "content": "42"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"},
                {"role": "assistant", "content": "w"},
            ]
        },
        asked([{"type": "video", "video": "1.mp4", "num_frames": 3}, {"type": "audio", "audio": "1.m4a"}, {"image": "2.jpg"}]),
    ],
    "sharegpt": [
        {
            "image": ["1.jpg", "2.jpg"],
            "conversations": [
                {"from": "human", "value": "<image>\n<image>\nsame?"}, {"from": "gpt", "value": "no"}, {"from": "human", "value": "why?"},
                {"from": "gpt", "value": "colour"},
            ],
        }
    ],
    "caption": [{"image": "1.jpg", "caption": ["a", "b"]}],
    "caption_video": [{"video": "1.mp4", "caption": "a"}],
    "asr": [{"audio": "1.wav", "transcription": "hello"}, {"audio": "1.m4a", "transcription": "m4a"}],
    "text": qa_rows(3),
    "alpaca": [{"instruction": "Translate.", "input": "heron", "output": "Reiher"}],
    "multiple_choice": [{"image": "1.jpg", "question": "which?", "choices": ["x", "y"], "answer": 1}],
    "ocr": [{"image": "1.jpg", "ground_truth": {"total": "12.50", "lines": [{"text": "tea"}]}}],
    "detection": [{"image": "1.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "area": [12], "category": ["heron"]}}],
    "clips": [
        asked([{"type": "video", "video": "1.mp4", "fps": 2, "start": 0, "end": 1.5}, {"type": "text", "text": "a"}]),
        asked([{"type": "video", "video": ["1.jpg", "1.jpg"], "frames_fps": 4}, {"type": "video", "video": "frames", "num_frames": 2}]),
    ],
    "tools": [
        {
            "messages": [
                {"role": "user", "content": "Sky?"},
                {
                    "role": "assistant", "content": None, "reasoning": "hm",
                    "tool_calls": [{"id": "1", "name": "f", "arguments": '{"n": 1.50}'}],
                },
                {"role": "tool", "tool_call_id": "1", "name": "f", "content": "clear"},
                {"role": "assistant", "content": "Clear.", "weight": 0.5},
            ],
            "tools": [{"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "number"}}}}],
        },
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
}  # fmt: skip


def embedded(conversation: Conversation) -> Conversation:
    """The conversation with its media as bytes and without its origin, for comparison."""

    def inside(part):
        if isinstance(part, Text):
            return part
        frames = frame_list(part) if isinstance(part, Video) else None
        if frames is not None:
            return replace(part, path=None, frames=tuple(inside(frame) for frame in frames))
        with open_blob(part, kind_of(part), rules=RULES) as blob:
            return replace(part, path=None, data=blob.file.read())

    messages = [replace(message, parts=tuple(inside(part) for part in message.parts)) for message in conversation.messages]
    return Conversation(messages=tuple(messages), answers=conversation.answers, tools=conversation.tools)


def converted(tmp_path, sections, to, **options):
    """The original mixture, the result, and the mixture of the output."""
    mixture = build_mixture([unweighted(one) for one in sections], rules=RULES)
    options = {"name": "train", **options}
    done = convert(mixture, Conversion(to=to, out=tmp_path / "out", **options), version="0")
    return mixture, done, build_mixture([section(path=tmp_path / "out")], rules=RULES)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("form", ROWS)
def test_every_conversation_comes_back(tmp_path, form, to):
    media(tmp_path)
    chosen = section(path=jsonl(tmp_path / "a.jsonl", ROWS[form]))
    mixture, done, again = converted(tmp_path, [chosen], to)
    assert (done.read, done.written, done.bad) == (len(ROWS[form]), len(ROWS[form]), {})
    assert again.formats[0].startswith("messages (")
    for number in range(done.written):
        assert embedded(again.conversation(number)) == embedded(mixture.conversation(number))
    assert not done.ledger.exists()


@pytest.mark.parametrize("to", TARGETS)
def test_the_recipes_rules_are_in_the_records(tmp_path, to):
    media(tmp_path)
    path = jsonl(tmp_path / "a.jsonl", [{"image": "1.jpg", "finding": f"f{number}", "age": number} for number in range(10)])
    rules = {
        "columns": {"answer": "finding"},
        "format": "qa",
        "prompt": "At {age}?",
        "system": "Be brief.",
        "max_pixels": 40,
        "weight": 0.3,
    }
    sections = [section(path=path, split="[:8]", **rules), section(path=jsonl(tmp_path / "b.jsonl", qa_rows(3)), weight=2.5)]
    mixture, done, again = converted(tmp_path, sections, to, max_records=4)
    assert done.written == 11 and [file.name.rpartition(".")[0] for file in done.files] == [f"train-0000{n}-of-00003" for n in range(3)]
    assert [embedded(again.conversation(n)) for n in range(11)] == [embedded(mixture.conversation(n)) for n in range(11)]
    first = again.conversation(0)
    assert [message.text for message in first.messages] == ["Be brief.", "At 0?", "f0"]
    assert first.media[0].max_pixels == 40


def test_the_two_targets_and_a_second_conversion_hold_the_same(tmp_path):
    media(tmp_path)
    path = jsonl(tmp_path / "a.jsonl", ROWS["messages"])
    hashes = set()
    for to in TARGETS:
        for source, out in ((path, f"{to}1"), (path, f"{to}2"), (tmp_path / f"{to}1", f"{to}3")):
            mixture = build_mixture([section(path=source)], rules=RULES)
            done = convert(mixture, Conversion(to=to, out=tmp_path / out, name="train"), version="0")
            hashes.add(json.loads((done.out / MANIFEST).read_text())["content_sha256"])
        contents = [[file.read_bytes() for file in sorted((tmp_path / f"{to}{n}").glob("train-*"))] for n in (1, 2)]
        assert contents[0] == contents[1]
    assert len(hashes) == 1


def test_shards_are_cut_by_size(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, 30_000, dtype=np.uint8).tobytes() for _ in range(4)]
    whole = encoded(noise_picture(), "PNG")
    for number, noise in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(whole + noise)  # what follows the picture is no part of it, and is copied all the same
    rows = [{"image": f"{number}.png", **row} for number, row in enumerate(qa_rows(4))]
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", rows))])
    done = convert(mixture, Conversion(to="webdataset", out=tmp_path / "out", name="x", max_bytes=90_000), version="0")
    manifest = json.loads((done.out / MANIFEST).read_text())
    assert [file["records"] for file in manifest["files"]] == [2, 2]
    assert manifest["source"]["fingerprint"] == mixture.fingerprint()
    assert build_mixture([section(path=tmp_path / "out")]).conversation(3).media[0].data == whole + pictures[3]


def test_bad_records_are_listed_and_counted(tmp_path):
    media(tmp_path)
    (tmp_path / "cut.jpg").write_bytes(b"<html>")
    rows = [
        {"image": name, "question": "q", "answer": answer}
        for name, answer in (("1.jpg", "a"), ("0.jpg", "b"), ("cut.jpg", "c"), ("2.jpg", ""), ("2.jpg", "e"))
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    mixture = build_mixture([section(path=path)], rules=RULES)
    with pytest.raises(DataError) as caught:
        convert(mixture, Conversion(to="parquet", out=tmp_path / "out", name="train", max_bad=2), version="0")
    assert caught.value.reason == "too_many_bad" and "a.jsonl row 1: image_missing" in str(caught.value)
    assert "3 bad records, and `--max-bad 2` allows 2" in str(caught.value)
    assert not (tmp_path / "out").exists() and len(ledger_path(tmp_path / "out").read_text().splitlines()) == 3
    _, done, again = converted(tmp_path, [section(path=path)], "parquet", max_bad="60%")
    assert done.bad == {"image_missing": 1, "image_not_image": 1, "empty_answer": 1} and (done.read, done.written) == (5, 2)
    assert [json.loads(line)["origin"]["row"] for line in done.ledger.read_text().splitlines()] == [1, 2, 3]
    assert [again.conversation(n).messages[-1].text for n in range(2)] == ["a", "e"]
    assert json.loads((done.out / MANIFEST).read_text())["bad"] == done.bad


def test_no_folder_of_the_users_is_replaced(tmp_path):
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", qa_rows(2)))])
    ask = Conversion(to="parquet", out=tmp_path / "out", name="train")
    (tmp_path / "out").mkdir()
    convert(mixture, ask, version="0")  # an empty folder is no obstacle
    with pytest.raises(FoveateError, match="not empty"):
        convert(mixture, ask, version="0")
    done = convert(mixture, replace(ask, overwrite=True, to="webdataset"), version="0")
    assert [file.suffix for file in done.files] == [".tar"] and len(list((tmp_path / "out").iterdir())) == 2
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(FoveateError, match=r"holds mine.txt, which this command has not written"):
        convert(mixture, replace(ask, overwrite=True), version="0")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FoveateError, match="is a file"):
        convert(mixture, replace(ask, out=tmp_path / "file"), version="0")
    with pytest.raises(FoveateError, match=r"no folder can be made there, as .*file is a file"):
        convert(mixture, replace(ask, out=tmp_path / "file/out"), version="0")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.txt").write_text("x")
    with pytest.raises(FoveateError, match=r"holds x.txt"):
        convert(mixture, replace(ask, out=tmp_path / "other", overwrite=True), version="0")
    again = build_mixture([section(path=tmp_path / "other/../out/train-00000-of-00001.tar")])
    with pytest.raises(FoveateError, match="lie in each other"):
        convert(again, replace(ask, overwrite=True), version="0")


def test_what_is_not_read_back_as_written_is_refused(tmp_path):
    media(tmp_path)
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", ROWS["caption"] * 2))], rules=RULES)

    def flip(what, done, total):
        if (what, done) != ("verifying", 1):
            return
        (path,) = (tmp_path / ".out.partial").glob("*.tar")
        content, state = path.read_bytes(), path.stat()
        at = content.rindex(b"\xff\xd8\xff") + 30  # in the second record's picture
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    with pytest.raises(FoveateError, match=r"the output is not right: record 1 .* is not what was written"):
        convert(mixture, Conversion(to="webdataset", out=tmp_path / "out", name="train"), version="0", progress=flip)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["frames"]


def test_an_interruption_leaves_nothing(tmp_path):
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", qa_rows(5)))])

    def interrupt(what, done, total):
        if (what, done) == ("writing", 3):
            raise KeyboardInterrupt

    for to in TARGETS:
        with pytest.raises(KeyboardInterrupt):
            convert(mixture, Conversion(to=to, out=tmp_path / "deep/out", name="train"), version="0", progress=interrupt)
        assert list((tmp_path / "deep").iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_two_runs_keep_apart(tmp_path):
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", qa_rows(2)))])
    ask = Conversion(to="parquet", out=tmp_path / "out", name="train")
    (tmp_path / ".out.partial/deep").mkdir(parents=True)
    (tmp_path / ".out.partial/old.parquet").write_text("x")

    def second(what, done, total):
        with pytest.raises(FoveateError, match="another process is writing there"):
            convert(mixture, ask, version="0")

    done = convert(mixture, ask, version="0", progress=second)
    assert sorted(path.name for path in done.out.iterdir()) == [MANIFEST, "train-00000-of-00001.parquet"]


def test_a_stream_is_refused():
    with pytest.raises(FoveateError, match="a stream can't be converted"):
        unweighted(section(hub="a/b", streaming=True))


def run(capsys, *args) -> tuple[int, str]:
    code = main(["convert", *map(str, args)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_the_command_on_a_path(tmp_path, capsys):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(10))
    code, text = run(capsys, path, "--to", "parquet", "--output", tmp_path / "out", "--split", "train[:7]", "--records-per-shard", 3)
    assert code == 0
    assert "7 records read = 7 written + 0 quarantined; read again, and equal" in text and "3 files in" in text
    for more, message in (
        (["--shard-size", "many"], "--shard-size: 'many' is no size"),
        (["--max-bad", "-1"], "--max-bad: '-1' is no count and no share"),
        (["--name", "a/b"], "--name: 'a/b' is no name"),
        (["--source", "1"], "--source: a path is one source"),
        (["data.workers=1"], "overrides a recipe"),
        ([], "the folder is not empty"),
    ):
        code, text = run(capsys, path, *more, "--to", "parquet", "--output", tmp_path / "out")
        assert code == 2 and message in text and "Traceback" not in text


def test_the_command_on_a_recipe(tmp_path, capsys):
    turns = "[{'role': 'user', 'content': row['question']}, {'role': 'assistant', 'content': row['answer'] + '!'}]"
    (tmp_path / "mine.py").write_text(f"def adapt(row):\n    return {turns}\n")
    jsonl(tmp_path / "a.jsonl", qa_rows(4))
    jsonl(tmp_path / "b.jsonl", qa_rows(2))
    recipe = tmp_path / "r.yaml"
    sources = "[{path: a.jsonl, weight: 3}, {path: b.jsonl, adapter: 'mine.py:adapt', system: s}]"
    recipe.write_text(f"model: {{id: foveate:tiny}}\ndata:\n  train: {sources}\n  eval: [{{path: b.jsonl}}]\n")
    out = ["--to", "webdataset", "--output", tmp_path / "out", "--overwrite"]
    code, text = run(capsys, recipe, *out)
    assert code == 2 and "has not been allowed to run" in text
    code, text = run(capsys, recipe, *out, "--allow-code")
    assert code == 0 and "6 records read = 6 written" in text and "each record is written once" in text
    found = build_mixture([section(path=tmp_path / "out")]).conversation(5)
    assert [message.text for message in found.messages] == ["s", "q1", "a1!"]
    code, text = run(capsys, recipe, *out, "--allow-code", "--source", 2)
    assert code == 0 and "2 records read = 2 written" in text
    code, text = run(capsys, recipe, *out, "--allow-code", "--split", "eval", "data.eval.0.limit=1")
    assert code == 0 and "1 record read = 1 written" in text and (tmp_path / "out/eval-00000-of-00001.tar").exists()
    for more, message in ((["--source", 3], "has 2 sources"), (["--split", "test"], "no split 'test'")):
        code, text = run(capsys, recipe, *out, "--allow-code", *more)
        assert code == 2 and message in text
