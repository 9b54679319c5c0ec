from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gremlins.outcome import Bail
from gremlins.repository import folder, worktree
from gremlins.stages.edits.answer import (
    FORMAT,
    Delete,
    Edit,
    EditReply,
    NothingToDo,
    Replace,
    UnreadableReply,
    Verdict,
    Write,
    parse_reply,
    parse_verdict,
)
from gremlins.stages.edits.checking import Checked, EditsReady, Mismatched, Refused, check_edits, render_mismatches
from gremlins.stages.edits.matching import replace_once
from gremlins.stages.tags import tagged
from gremlins.stages.text_files import read_text
from tests.conftest import Repo, make_repo
from tests.time_limit import must_end


def shown(root: Path) -> str:
    """A prompt with every file of the worktree in it, whole."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and ".git" not in path.parts)
    texts = {path.relative_to(root).as_posix(): read_text(path.read_bytes()) for path in files}
    return "".join(tagged("file", found.text, path=name) for name, found in texts.items() if found)


def checked_edits(root: Path, edits: Sequence[Edit]) -> Checked:
    return check_edits(root, edits, shown(root))


def contents(checked: Checked) -> dict[str, bytes | None]:
    assert isinstance(checked, EditsReady), checked
    return {change.path: change.content for change in checked.changes}


def reasons(checked: Checked) -> list[str]:
    assert isinstance(checked, Mismatched), checked
    return [mismatch.reason for mismatch in checked.mismatches]


def replaced(repo: Repo, before: str | bytes, old: str, new: str) -> bytes | None:
    repo.write({"f": before})
    return contents(checked_edits(repo.path, [Replace(path="f", old=old, new=new)])).get("f", b"unchanged")


# --- the form


def test_the_schema_leaves_no_key_optional_and_none_unknown() -> None:
    def objects(node: object) -> list[dict[str, object]]:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        own = [node] if isinstance(node, dict) and node.get("type") == "object" else []
        return own + [found for value in inner for found in objects(value)]

    found = objects(FORMAT)
    assert len(found) == 7
    for node in found:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])  # type: ignore[call-overload]


def test_a_reply_is_read() -> None:
    listed = '{"path": "a", "old": "x", "new": "y"}, {"path": "b", "content": ""}, {"path": "c", "delete": true}'
    text = f'{{"edits": [{listed}], "summary": "s"}}'
    assert parse_reply(text) == EditReply(
        edits=(Replace(path="a", old="x", new="y"), Write(path="b", content=""), Delete(path="c", delete=True)),
        summary="s",
    )


@pytest.mark.parametrize(
    "frame",
    [
        "```json\n%s\n```",
        "Here you are:\n\n%s\n\nI hope it helps {really}.",
        '{"note": 1}\n%s',
        '{"result": %s}',
        "\ufeff%s ",
    ],
)
def test_a_reply_with_something_around_it_is_read(frame: str) -> None:
    assert parse_reply(frame % '{"edits": [{"path": "a{b", "content": "{\\"edits\\": []}"}], "summary": ""}').edits


def test_keys_that_do_not_apply_may_be_null() -> None:
    text = '{"edits": [{"path": "a", "old": null, "new": null, "content": "x", "delete": false}], "summary": null}'
    assert parse_reply(text).edits == (Write(path="a", content="x"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object"),
        ("I changed it.", "no JSON object"),
        ('{"edits": [{"path": "a", "content": "cut of', "no JSON object"),
        ("[" * 100_000 + '{"a":' * 100_000, "no JSON object"),
        ('{"edits": []} or {"edits": []}', "several lists"),
        ('{"edits": "none"}', "cannot be read"),
        ('{"edits": [{"path": "a"}]}', "edit 1 is none of"),
        ('{"edits": [{"path": "a", "old": "x", "new": "y", "content": "z"}]}', "edit 1 is none of"),
        ('{"edits": [{"path": "", "content": "z"}]}', "edit 1 is none of"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(UnreadableReply, match=why):
        parse_reply(text)


def test_words_that_only_bail_are_an_empty_list() -> None:
    assert parse_reply("I cannot.\nBAIL: no_access: none") == EditReply(
        edits=(), summary="I cannot.\nBAIL: no_access: none"
    )


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("done\nBAIL: needs_human: the key is missing\n\n", Bail("needs_human", "the key is missing")),
        ("**BAIL: Needs_Human: x**", Bail("needs_human", "x")),
        ("`BAIL: a-b: c: d`", Bail("a-b", "c: d")),
        ("**BAIL:** `refused`: no", Bail("refused", "no")),
        ("```\nBAIL: x: y\n```", Bail("x", "y")),
        ("BAIL: needs_human", Bail("needs_human", "")),
        ("BAIL: needs human: really", Bail("needs_human", "really")),
        ("BAIL: I cannot do that", Bail("unspecified", "I cannot do that")),
        ("BAIL:", Bail("unspecified", "")),
        ("NOTHING TO DO: it is done", NothingToDo("it is done")),
        ("_NOTHING TO DO:_ it is done", NothingToDo("it is done")),
        ("NOTHING TO DO:", NothingToDo("no reason given")),
        ("I cannot.\r\nbail: needs_human: x\r\n", Bail("needs_human", "x")),
        ("Nothing to do: it is done", NothingToDo("it is done")),
        ("> BAIL: x: y", None),
        ("BAIL: x: y\nBut then I found a way.", None),
        ("Say BAIL: x: y if you cannot", None),
        ("bailing: x", None),
        ("", None),
    ],
)
def test_only_the_last_line_is_a_verdict(text: str, verdict: Verdict | None) -> None:
    assert parse_verdict(text) == verdict


@pytest.mark.parametrize("unit", ["*", "`", " ", "BAIL: ", "{", '{"edits"', "\n", "a "])
def test_no_reply_however_odd_takes_long(unit: str) -> None:
    odd = unit * (100_000 // len(unit))
    began = time.process_time()
    parse_verdict(odd)
    with contextlib.suppress(UnreadableReply):
        parse_reply(odd + '{"edits": 1')
    assert time.process_time() - began < 5


# --- what an edit may name


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../x", "a/../../x", "a/..", ".git/config", ".GIT/hooks/x", "sub/.Git/x", ".git", ".git ./x",
        "git~1/x", ".g\u200cit/config", ".git::$INDEX_ALLOCATION/x", "..\\x", "a\\.git\\x", "C:\\x", "~/x",
        "out/x", "out", "in/../../x", "deep/out/x", "up/x", "loop/x", "to_git/config", "a\nb", "a\0b",
        "x" * 300, "d/" * 3000, ".", "./",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["write", "replace", "delete"])
def test_a_place_that_is_not_the_worktrees_refuses_the_whole_list(
    repo: Repo, tmp_path: Path, path: str, kind: str
) -> None:
    (repo.path / "deep").mkdir()
    for link, target in {"out": tmp_path, "deep/out": "../..", "up": "..", "loop": "loop", "to_git": ".git"}.items():
        os.symlink(target, repo.path / link)
    bad: Edit = {
        "write": Write(path=path, content="x"),
        "replace": Replace(path=path, old="", new="x"),
        "delete": Delete(path=path, delete=True),
    }[kind]
    checked = checked_edits(repo.path, [Write(path="fine.py", content="x"), bad])
    if kind == "delete" and path == "out":
        assert contents(checked)["out"] is None  # the link itself, which is the worktree's
    else:
        assert isinstance(checked, Refused), checked


@pytest.mark.parametrize(
    "path", [".github/workflows/x.yml", ".gitignore", "a/..b", "...", "digit~1x", ".gitx", "my.git/x"]
)
def test_names_that_only_look_alike_are_fine(repo: Repo, path: str) -> None:
    assert path in contents(checked_edits(repo.path, [Write(path=path, content="x")]))


def test_a_link_inside_the_worktree_stands_for_its_file(repo: Repo) -> None:
    os.symlink("calc.py", repo.path / "alias.py")
    os.symlink("tests", repo.path / "t")
    found = contents(
        checked_edits(repo.path, [Write(path="alias.py", content="x\n"), Write(path="./t/new.py", content="y\n")])
    )
    assert found == {"calc.py": b"x\n", "tests/new.py": b"y\n"}


def test_a_submodules_files_are_another_repositorys(repo: Repo) -> None:
    repo.write({".gitmodules": "[submodule]"})
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.head()},libs/sub")
    assert "is a submodule" in reasons(checked_edits(repo.path, [Write(path="libs/sub/x", content="x")]))[0]


NAMES = st.sampled_from(
    [
        "calc.py",
        "tests",
        "new",
        "out",
        "in",
        "up",
        "..",
        ".",
        ".git",
        ".GIT",
        "git~1",
        "",
        "a",
        "\\..",
        ".git.",
        "é",
        "C:",
        "~",
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join).filter(bool) | st.text(min_size=1, max_size=20)
TEXTS = st.text(alphabet="ab\n\r xé", max_size=12)
EDITS = st.lists(
    st.builds(Write, path=PATHS, content=TEXTS)
    | st.builds(Replace, path=PATHS, old=TEXTS, new=TEXTS)
    | st.builds(Delete, path=PATHS, delete=st.just(True)),
    max_size=5,
)


@pytest.fixture(scope="module")
def jungle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worktree with links of every sort."""
    root = make_repo(tmp_path_factory.mktemp("jungle") / "worktree").path
    (root / "tests").mkdir()
    (root / "calc.py").write_text("a b\na a\n")
    (root / "tests/a").write_bytes(b"a\r\nb\xff\r\n")
    for link, target in {"out": "/", "up": "..", "in": "tests", "tests/up": "..", "tests/out": "../../x"}.items():
        os.symlink(target, root / link)
    return root


@given(listed=EDITS)
def test_no_list_of_edits_reaches_outside_or_into_git(jungle: Path, listed: list[Edit]) -> None:
    checked = checked_edits(jungle, listed)
    if isinstance(checked, EditsReady):
        for change in checked.changes:
            assert (jungle / change.path).parent.resolve().is_relative_to(jungle.resolve())
            assert ".git" not in [part.casefold().rstrip(" .") for part in change.path.split("/")]
            assert not change.path.startswith("/")


ANSWERS = [
    '{"edits": [{"path": "calc.py", "old": "a b", "new": "b"}], "summary": "s"}',
    'Here:\n```json\n{"edits": [{"path": "n.txt", "content": "x\\n"}], "summary": ""}\n```\n',
    '{"edits": [], "summary": "BAIL: unclear: why?"}',
]
PIECES = st.text(max_size=12) | st.sampled_from(
    ['{"edits": [', '"', "}", "]}", "null", "\\ud800", "[" * 3000, "BAIL:", "```"]
)


@given(
    answer=st.sampled_from(ANSWERS), cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2), PIECES), max_size=4)
)
@settings(max_examples=200)
def test_an_answer_of_any_text_is_a_list_or_cannot_be_read(
    jungle: Path, answer: str, cuts: list[tuple[float, float, str]]
) -> None:
    for where, share, piece in cuts:
        at = int(where * len(answer))
        answer = answer[:at] + piece + answer[at + int(share * len(answer)) :]
    try:
        reply = parse_reply(answer)
    except UnreadableReply:
        return
    assert isinstance(checked_edits(jungle, reply.edits), EditsReady | Mismatched | Refused)


@given(listed=EDITS)
def test_checking_writes_nothing_and_answers_for_the_whole_list(jungle: Path, listed: list[Edit]) -> None:
    files = [jungle / "calc.py", jungle / "tests/a"]
    before = [path.read_bytes() for path in files], sorted(os.listdir(jungle)), sorted(os.listdir(jungle / "tests"))
    match checked_edits(jungle, listed):
        case EditsReady(changes):
            assert len({change.path for change in changes}) == len(changes)
        case Mismatched(mismatches):
            assert mismatches
            assert all(0 <= mismatch.index < len(listed) for mismatch in mismatches)
        case Refused(reason):
            assert reason
    assert before == (
        [path.read_bytes() for path in files],
        sorted(os.listdir(jungle)),
        sorted(os.listdir(jungle / "tests")),
    )


# --- whether it fits


def test_edits_apply_in_order_each_to_what_the_one_before_left(repo: Repo) -> None:
    repo.write({"f": "one\ntwo\n"})
    listed: list[Edit] = [
        Replace(path="f", old="one", new="1"),
        Replace(path="f", old="1\ntwo", new="1\n2"),
        Write(path="g", content="g"),
        Replace(path="g", old="g", new="G"),
        Delete(path="calc.py", delete=True),
        Write(path="calc.py", content="anew"),
    ]
    assert contents(checked_edits(repo.path, listed)) == {"f": b"1\n2\n", "g": b"G", "calc.py": b"anew"}


def test_one_edit_that_does_not_fit_holds_back_all(repo: Repo) -> None:
    listed: list[Edit] = [
        Write(path="new", content="x"),
        Replace(path="calc.py", old="return a / b", new="return a + b"),
    ]
    checked = checked_edits(repo.path, listed)
    assert isinstance(checked, Mismatched)
    (mismatch,) = checked.mismatches
    assert (mismatch.path, mismatch.index) == ("calc.py", 1)
    assert "return a - b" in mismatch.nearest


def test_what_changes_nothing_is_left_out(repo: Repo) -> None:
    listed: list[Edit] = [
        Write(path="calc.py", content=repo.read("calc.py")),
        Replace(path="README.md", old="# Calc", new="# Calc"),
        Write(path="passing", content="x"),
        Delete(path="passing", delete=True),
    ]
    assert contents(checked_edits(repo.path, listed)) == {}
    assert contents(checked_edits(repo.path, [])) == {}


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Replace(path="calc.py", old="return a", new="x"), "2 times (lines 2, 6)"),
        (Replace(path="calc.py", old="", new="x"), "`old` is empty"),
        (Replace(path="none.py", old="x", new="y"), "no such file"),
        (Delete(path="none.py", delete=True), "no such file"),
        (Delete(path="tests", delete=True), "it is a folder"),
        (Write(path="tests", content="x"), "it is a folder"),
        (Write(path="calc.py/x", content="x"), "`calc.py` is a file"),
        (Write(path="x", content="\ud83d"), "surrogate"),
        (Replace(path="calc.py", old="def add", new="\udcff"), "surrogate"),
    ],
)
def test_what_does_not_fit_says_why(repo: Repo, edit: Edit, why: str) -> None:
    assert why in reasons(checked_edits(repo.path, [edit]))[0]


def test_a_missing_file_offers_those_of_the_same_name(repo: Repo) -> None:
    checked = checked_edits(repo.path, [Replace(path="src/test_calc.py", old="x", new="y")])
    assert isinstance(checked, Mismatched)
    assert checked.mismatches[0].nearest == "tests/test_calc.py\n"


def test_no_path_can_be_both_file_and_folder(repo: Repo) -> None:
    assert (
        "at once"
        in reasons(checked_edits(repo.path, [Write(path="n/x", content="x"), Write(path="n", content="x")]))[0]
    )
    assert (
        "is a file"
        in reasons(checked_edits(repo.path, [Write(path="n", content="x"), Write(path="n/x", content="x")]))[0]
    )
    listed: list[Edit] = [Delete(path="calc.py", delete=True), Write(path="calc.py/x", content="x")]
    assert contents(checked_edits(repo.path, listed)) == {"calc.py": None, "calc.py/x": b"x"}


def test_an_empty_old_makes_a_file_or_fills_an_empty_one(repo: Repo) -> None:
    repo.write({"empty": ""})
    listed: list[Edit] = [Replace(path="empty", old="", new="a"), Replace(path="new", old="", new="b")]
    assert contents(checked_edits(repo.path, listed)) == {"empty": b"a", "new": b"b"}


# --- matching


def test_old_must_be_there_once_overlaps_counted(repo: Repo) -> None:
    repo.write({"f": "aaa"})
    assert "2 times" in reasons(checked_edits(repo.path, [Replace(path="f", old="aa", new="b")]))[0]


def test_the_files_own_line_ends_are_kept(repo: Repo) -> None:
    assert replaced(repo, b"a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\nz\n") == b"x\r\ny\r\nz\r\nc\r\n"
    assert replaced(repo, b"a\r\nb\r\n", "b", "x\ny") == b"a\r\nx\r\ny\r\n"
    assert replaced(repo, b"a\nb\n", "a\r\nb", "x\r\ny") == b"x\ny\n"
    assert replaced(repo, b"a\nb\r\nc\r\nd\n", "b\nc", "x\ny") == b"a\nx\r\ny\r\nd\n"


def test_a_rewritten_file_keeps_its_line_ends_and_byte_order_mark(repo: Repo) -> None:
    repo.write({"f": b"\xef\xbb\xbfa\r\nb\r\n"})
    assert contents(checked_edits(repo.path, [Write(path="f", content="x\ny\n")])) == {"f": b"\xef\xbb\xbfx\r\ny\r\n"}


def test_white_space_that_ends_a_line_does_not_matter_when_all_else_fails(repo: Repo) -> None:
    assert replaced(repo, "a  \n\t\nb\nc\n", "a\n\nb\n", "x\n") == b"x\nc\n"
    assert replaced(repo, "a\nb\nc\n", "a \nb \n", "x\n") == b"x\nc\n"
    assert replaced(repo, "a \nb", "a\nb", "x") == b"x"
    repo.write({"f": "a \nb\na  \nb\n"})
    assert "2 places" in reasons(checked_edits(repo.path, [Replace(path="f", old="a\nb", new="x")]))[0]


def test_bytes_that_are_not_utf8_survive_an_edit_beside_them(repo: Repo) -> None:
    assert replaced(repo, b"caf\xe9\nprice\n", "price", "Preis") == b"caf\xe9\nPreis\n"


@given(before=TEXTS, old=st.text(alphabet="ABC\n", min_size=1, max_size=6), new=st.text(max_size=12), after=TEXTS)
def test_what_is_replaced_once_is_replaced_and_nothing_else(before: str, old: str, new: str, after: str) -> None:
    text = before + "Z" + old + "Z" + after
    if text.count(old) == 1 and "\r" not in text + new:
        assert replace_once(text, old, new).text == before + "Z" + new + "Z" + after


@given(lines=st.lists(st.text(alphabet="abc ", max_size=5), min_size=1, max_size=8, unique=True), data=st.data())
def test_an_edit_and_its_inverse_bring_the_file_back(lines: list[str], data: st.DataObject) -> None:
    text = "".join(f"<{number}>{line}\n" for number, line in enumerate(lines))
    at = data.draw(st.integers(0, len(lines) - 1))
    old, new = (
        f"<{at}>{lines[at]}\n",
        data.draw(st.text(alphabet="xyz\n", min_size=1, max_size=9).map(lambda t: f"[{t}]\n")),
    )
    for end in ("\n", "\r\n"):
        file = text.replace("\n", end)
        changed = replace_once(file, old, new).text
        assert replace_once(changed, new, old).text == file


# --- sending back


def test_what_did_not_fit_is_sent_back_with_what_is_there(repo: Repo) -> None:
    repo.commit({"doc.md": "Intro\n```\nold code here\n```\n"})
    checked = checked_edits(
        repo.path,
        [
            Replace(path="doc.md", old="Intro\n```\nold code there\n", new="x"),
            Replace(path="nowhere.py", old="x", new="y"),
        ],
    )
    assert isinstance(checked, Mismatched)
    message = render_mismatches(checked.mismatches)
    assert "None of your edits was applied" in message
    assert "edit 1, `doc.md`: `old` is not in the file" in message
    assert "````\nIntro\n```\nold code here\n" in message
    assert "edit 2, `nowhere.py`: there is no such file" in message


def test_a_large_file_is_searched_to_its_end(repo: Repo) -> None:
    repo.write({"big.py": "".join(f"value_{n} = {n}\n" for n in range(60_000))})
    old = "".join(f"value_{n} = {n}\n" for n in range(100, 200)) + "not there\n"
    with must_end():
        found = reasons(checked_edits(repo.path, [Replace(path="big.py", old=old, new="")]))
    assert found == ["`old` is not in the file"]


def test_a_reply_goes_all_the_way_to_a_commit(repo: Repo, tmp_path: Path) -> None:
    made = folder.create(repo.path, tmp_path / "w", "gremlins/g", "main")
    text = json.dumps({"edits": [{"path": "calc.py", "old": "a - b", "new": "a + b"}], "summary": "Add, not subtract"})
    reply = parse_reply(text)
    checked = checked_edits(made.path, reply.edits)
    assert isinstance(checked, EditsReady)
    worktree.commit_aside(made, checked.changes, message=reply.summary, trailer=worktree.trailer_of("k"))
    assert "return a + b" in (made.path / "calc.py").read_text()
