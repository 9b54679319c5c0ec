"""Code is never lost by an edit: tables of what there is, what is answered, and the bytes after it."""

from __future__ import annotations

import os
import time
import unicodedata

import pytest

from gremlins.masking import MASK
from gremlins.stages.edits.answer import Delete, Edit, Replace, Write
from gremlins.stages.edits.checking import Checked, EditsReady, Mismatched, check_edits, render_mismatches
from gremlins.stages.edits.placeholders import placeholder_in
from gremlins.stages.secrecy import screen
from gremlins.stages.tags import tagged
from gremlins.stages.text_files import read_text
from tests.conftest import Repo

LONG = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(50))


def seen(repo: Repo, *names: str) -> str:
    """A prompt that shows these files whole, as far as they may be shown."""
    files = {name: read_text((repo.path / name).read_bytes()) for name in names}
    texts = {name: screen(name, found.text).text for name, found in files.items() if found}
    return "".join(tagged("file", text, path=name) for name, text in texts.items() if text is not None)


def after(checked: Checked) -> dict[str, bytes | None]:
    assert isinstance(checked, EditsReady), checked
    return {change.path: change.content for change in checked.changes}


def why(checked: Checked) -> str:
    assert isinstance(checked, Mismatched), checked
    return "; ".join(mismatch.reason for mismatch in checked.mismatches)


def delete(path: str) -> Edit:
    return Delete(path=path, delete=True)


# --- what was shown binds the answer


def test_content_for_a_file_that_was_not_shown_is_sent_back_with_the_file(repo: Repo) -> None:
    repo.commit({"long.py": LONG})
    checked = check_edits(repo.path, [Write(path="long.py", content="x = 1\n")], seen(repo, "calc.py"))
    assert "you were not shown all of it" in why(checked)
    assert isinstance(checked, Mismatched)
    correction = render_mismatches(checked.mismatches)
    assert tagged("file", LONG, path="long.py").strip() in correction
    assert after(check_edits(repo.path, [Write(path="long.py", content="x = 1\n")], correction)) == {
        "long.py": b"x = 1\n"
    }


PARTS = {
    "not at all": "",
    "in part": tagged("file", LONG[:400] + "[lines 26–200 are not shown: f9]\n", path="long.py", lines="1-25 of 200"),
    "its beginning": tagged("file", LONG[:400], path="long.py"),
    "under another name": tagged("file", LONG, path="other.py"),
    "quoted in a task": LONG,
    "as it was before": tagged("file", LONG.replace("return 3\n", "return 4\n"), path="long.py"),
}


@pytest.mark.parametrize(
    "edits",
    [
        [Write(path="long.py", content="x\n")],
        [delete("long.py"), Write(path="long.py", content="x\n")],
        [delete("long.py"), Replace(path="long.py", old="", new="x\n")],
        [Replace(path="long.py", old="return 7\n", new="return 8\n"), Write(path="long.py", content="x\n")],
        [delete("long.py"), Write(path="src/long.py", content="x\n")],
        [delete("long.py"), Write(path="moved.py", content=LONG[:400])],
        [Write(path="./long.py", content="x\n")],
        [Write(path="a/long.py", content="x\n")],
    ],
    ids=["write", "delete+write", "delete+new", "edit+write", "move", "rename", "dot", "patch"],
)
def test_no_list_loses_what_was_not_shown_whole(repo: Repo, edits: list[Edit]) -> None:
    repo.commit({"long.py": LONG})
    for how, shown in PARTS.items():
        assert "not shown all" in why(check_edits(repo.path, edits, shown)), how


@pytest.mark.parametrize(
    "raw", [LONG.encode(), b"", b"a\r\nb\r\n", "é\n".encode("utf-16"), b"caf\xe9", b"no end", b"</file>\n"]
)
def test_a_file_that_was_shown_whole_can_be_rewritten_moved_and_deleted(repo: Repo, raw: bytes) -> None:
    repo.commit({"f.py": raw})
    shown = seen(repo, "f.py")
    assert "f.py" in after(check_edits(repo.path, [Write(path="f.py", content="x = 1\n")], shown))
    assert (
        after(check_edits(repo.path, [delete("f.py"), Write(path="g/f.py", content="x\n")], shown))["g/f.py"] == b"x\n"
    )
    assert after(check_edits(repo.path, [delete("f.py")], "")) == {"f.py": None}


STANDS_FOR_CODE = [
    "[lines 26–200 are not shown: operator[], f9 …]",
    "x = 'aaaa [12,345 more characters of this line are not shown]",
    "[lines 26–200 are not shown: f9, f10 …]",
    "# ... rest of the code unchanged",
    "// ... existing code ...",
    "    // rest of file remains the same",
    "/* ... rest of the styles ... */",
    "<!-- rest of the content unchanged -->",
    "# (rest of the file is unchanged)",
    "... (rest of the file)",
    "{/* ... existing code ... */}",
    "    # ... other methods ...",
    "-- rest of the schema unchanged",
    "// ... same as before",
    "# … (unchanged) …",
    "// ... keep existing code",
    "# Existing code remains unchanged",
    "# ... (code omitted for brevity)",
    f"KEY = '{MASK}'",
    "// ... Rest des Codes bleibt unverändert",
    "# der Rest der Datei bleibt unverändert",
    "# ... resto del código sin cambios ...",
    "// ... (le reste du code est inchangé)",
    "/* ... código existente ... */",
    "// ... 其余代码保持不变",
    "# （其他代码不变）",
    "// …既存のコード…",
    "# ... 나머지 코드는 그대로 ...",
    "-- ... остальной код без изменений",
]


def test_what_stands_for_code_is_sent_back(repo: Repo) -> None:
    repo.commit({"long.py": LONG})
    shown = seen(repo, "long.py")
    for line in STANDS_FOR_CODE:
        edits: list[Edit] = [
            Write(path="long.py", content=LONG[:400] + f"{line}\n"),
            Write(path="new.py", content=f"{line}\n"),
            Replace(path="long.py", old=LONG[400:], new=f"{line}\n"),
        ]
        checked = check_edits(repo.path, edits, shown)
        assert why(checked).count("stands for something") == 3, line


SOUNDS_SO = [
    "    ...",
    "# ...",
    "def f(*rest): ...",
    "# the rest of the items are handled by the caller",
    "# Keep the existing behaviour of the cache",
    "print('... existing code ...')",
    "# unchanged since 2010",
    "# All other fields are optional.",
    "expected = '# ... rest of the code unchanged'",
    "# der Rest wird gerundet",
    "title = 'unverändert'",
    "# 保持连接",
    "# a non-existent file...",
    "# now the rest...",
]


def test_code_that_only_sounds_so_is_code(repo: Repo) -> None:
    for line in SOUNDS_SO:
        assert after(check_edits(repo.path, [Write(path="new.py", content=f"x = 1\n{line}\n")], "")), line


@pytest.mark.parametrize(
    "unit", ["# ... rest ", "[not shown", "existing code ", " ", "(", "\n# rest of the code", "```\n"]
)
def test_no_text_takes_long_to_look_for_them(unit: str) -> None:
    began = time.process_time()
    placeholder_in("a.md", unit * (60_000 // len(unit)), "")
    assert time.process_time() - began < 3


def test_what_the_file_had_before_may_stay(repo: Repo) -> None:
    repo.commit({"f.py": "# ... rest of the code unchanged\nx = 1\n", "d.md": "# A\n"})
    edits: list[Edit] = [
        Write(path="f.py", content="# ... rest of the code unchanged\nx = 2\n"),
        Write(path="d.md", content="# A\n\n```python\nx = 1\n# ... rest of the code unchanged\n```\n"),
    ]
    assert set(after(check_edits(repo.path, edits, seen(repo, "f.py", "d.md")))) == {"f.py", "d.md"}


# --- the form of a file

FORMS = {
    "latin-1": (b"# caf\xe9\nx = 1\n", b"# caf\xe9\nx = 2\n", b"y = \xe9\n"),
    "windows-1252": (b"# \x93q\x94\nx = 1\n", b"# \x93q\x94\nx = 2\n", b"y = \xe9\n"),
    "a declared encoding": (
        "# coding: koi8-r\n# да\nx = 1\n".encode("koi8-r"),
        "# coding: koi8-r\n# да\nx = 2\n".encode("koi8-r"),
        None,
    ),
    "utf-16 with a mark": ("é\nx = 1\n".encode("utf-16"), "é\nx = 2\n".encode("utf-16"), "y = é\n".encode("utf-16")),
    "utf-16 without one": (
        "abc def\nx = 1\n".encode("utf-16-be"),
        "abc def\nx = 2\n".encode("utf-16-be"),
        "y = é\n".encode("utf-16-be"),
    ),
    "utf-8 with a mark": (b"\xef\xbb\xbfx = 1\n", b"\xef\xbb\xbfx = 2\n", "\ufeffy = é\n".encode()),
    "windows line ends": (b"a\r\nx = 1\r\n", b"a\r\nx = 2\r\n", "y = é\r\n".encode()),
    "carriage returns": (b"a\rx = 1\r", b"a\rx = 2\r", "y = é\r".encode()),
    "mixed line ends": (b"a\r\nx = 1\nb\r\n", b"a\r\nx = 2\nb\r\n", None),
    "no last line end": (b"a\nx = 1", b"a\nx = 2", "y = é\n".encode()),
}


@pytest.mark.parametrize(("before", "edited", "whole"), FORMS.values(), ids=FORMS)
def test_a_files_form_survives_an_edit_or_the_edit_is_sent_back(
    repo: Repo, before: bytes, edited: bytes, whole: bytes | None
) -> None:
    repo.commit({"f.py": before})
    shown = seen(repo, "f.py")
    assert after(check_edits(repo.path, [Replace(path="f.py", old="x = 1", new="x = 2")], shown)) == {"f.py": edited}
    rewritten = check_edits(repo.path, [Write(path="f.py", content="y = é\n")], shown)
    if whole is None:
        assert isinstance(rewritten, Mismatched)
    else:
        assert after(rewritten) == {"f.py": whole}


def test_a_mark_of_the_encoding_is_not_doubled(repo: Repo) -> None:
    repo.commit({"f.py": b"\xef\xbb\xbfx = 1\n"})
    for old, new in (("\ufeffx = 1", "x = 2"), ("x = 1", "\ufeffx = 2")):
        checked = check_edits(repo.path, [Replace(path="f.py", old=old, new=new)], "")
        assert after(checked) == {"f.py": b"\xef\xbb\xbfx = 2\n"}


def test_a_sign_that_the_encoding_lacks_is_sent_back(repo: Repo) -> None:
    repo.commit({"f.py": b"# caf\xe9\nx = 1\n"})
    assert "has no `→`" in why(check_edits(repo.path, [Replace(path="f.py", old="x = 1", new="x → 1")], ""))


@pytest.mark.parametrize("edit", [Write(path="new.py", content="a\0b"), Replace(path="calc.py", old="a - b", new="\0")])
def test_a_nul_does_not_get_into_a_file(repo: Repo, edit: Edit) -> None:
    assert "holds a NUL" in why(check_edits(repo.path, [edit], ""))


def test_a_file_that_is_no_text_is_not_edited(repo: Repo) -> None:
    repo.commit({"f.bin": b"PK\0\1\2x = 1\xff"})
    assert "not a text file" in why(check_edits(repo.path, [Replace(path="f.bin", old="x = 1", new="x")], ""))
    assert "not shown all" in why(check_edits(repo.path, [Write(path="f.bin", content="x")], ""))


# --- the file that a path means

NFC, NFD = (unicodedata.normalize(form, "dé/café.py") for form in ("NFC", "NFD"))
NAMES = {
    "composed": (NFC, NFD, NFC),
    "in parts": (NFD, NFC, NFD),
    "from a patch": ("src/x.py", "a/src/x.py", "src/x.py"),
    "to a patch": ("src/x.py", "b/src/x.py", "src/x.py"),
    "backslashes": ("src/x.py", "src\\x.py", "src/x.py"),
    "both": ("src/x.py", "a\\src\\x.py", "src/x.py"),
    "backticks": ("src/x.py", "`src/x.py`", "src/x.py"),
    "quotes": ("src/x.py", '"src/x.py"', "src/x.py"),
    "blanks": ("src/x.py", " src/x.py \n", "src/x.py"),
    "a dot": ("src/x.py", "./src/x.py", "src/x.py"),
    "its own a": ("a/src/x.py", "a/src/x.py", "a/src/x.py"),
    "a name with a blank": ("src/ x.py", "src/ x.py", "src/ x.py"),
    "a name in backticks": ("`x`", "`x`", "`x`"),
    "as a tag writes it": ("src/a&b.py", "src/a&amp;b.py", "src/a&b.py"),
    "as a link writes it": ("src/a b.py", "src/a%20b.py", "src/a b.py"),
    "as git writes it": (NFC, '"d\\303\\251/caf\\303\\251.py"', NFC),
    "with a line": ("src/x.py", "src/x.py:12:3", "src/x.py"),
    "a non-breaking space": ("src/a b.py", "src/a\u00a0b.py", "src/a b.py"),
    "an invisible sign": ("src/ab.py", "src/a\u200bb.py", "src/ab.py"),
    "a folder's case": ("src/App/x.py", "src/app/x.py", "src/App/x.py"),
}


@pytest.mark.parametrize(("there", "named", "meant"), NAMES.values(), ids=NAMES)
def test_a_path_in_another_form_is_the_file_meant(repo: Repo, there: str, named: str, meant: str) -> None:
    repo.commit({there: "x = 1\n"})
    edits: list[Edit] = [Replace(path=named, old="x = 1", new="x = 2"), delete(named)]
    for edit, content in zip(edits, (b"x = 2\n", None), strict=True):
        assert after(check_edits(repo.path, [edit], "")) == {meant: content}
    assert after(check_edits(repo.path, [Write(path=named, content="y\n")], seen(repo, there))) == {meant: b"y\n"}


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (f"{NFD.rpartition('/')[0]}/new.py", f"{NFC.rpartition('/')[0]}/new.py"),
        ("src\\new.py", "src/new.py"),
        ("a/src/new.py", "src/new.py"),
        ("`src/new.py`", "src/new.py"),
        (" new.py", "new.py"),
        ("a/new.py", "a/new.py"),
        ("src/deep/new.py", "src/deep/new.py"),
        ("SRC/new.py", "src/new.py"),
    ],
)
def test_a_new_file_lands_in_the_folder_meant(repo: Repo, named: str, meant: str) -> None:
    repo.commit({NFC: "x\n", "src/x.py": "x\n"})
    assert after(check_edits(repo.path, [Write(path=named, content="y\n")], "")) == {meant: b"y\n"}


def test_a_name_in_another_case_is_changed_but_not_written_over(repo: Repo) -> None:
    repo.commit({"button.tsx": "x = 1\n"})
    edits: list[Edit] = [Replace(path="Button.tsx", old="x = 1", new="x = 2"), delete("Button.tsx")]
    for edit, content in zip(edits, (b"x = 2\n", None), strict=True):
        assert after(check_edits(repo.path, [edit], "")) == {"button.tsx": content}
    write = Write(path="Button.tsx", content="x = 1\n")
    assert "differs only in case" in why(check_edits(repo.path, [write], seen(repo, "button.tsx")))
    renamed = {"button.tsx": None, "Button.tsx": b"x = 1\n"}
    for order in ([write, delete("button.tsx")], [delete("button.tsx"), write]):
        assert after(check_edits(repo.path, order, seen(repo, "button.tsx"))) == renamed


# --- links, submodules, folders


def test_a_link_that_the_list_deletes_is_no_way_to_its_target(repo: Repo) -> None:
    os.symlink("calc.py", repo.path / "link.py")
    os.symlink("tests", repo.path / "t")
    repo.commit({})
    edits: list[Edit] = [
        delete("link.py"),
        Write(path="link.py", content="own\n"),
        delete("t"),
        Write(path="t/x", content="y\n"),
    ]
    assert after(check_edits(repo.path, edits, "")) == {"link.py": b"own\n", "t": None, "t/x": b"y\n"}


def test_a_link_that_is_checked_out_as_a_file_stays_a_link(repo: Repo) -> None:
    os.symlink("calc.py", repo.path / "link.py")
    repo.commit({})
    repo.git("config", "core.symlinks", "false")
    (repo.path / "link.py").unlink()
    repo.git("checkout", "--", "link.py")
    assert not (repo.path / "link.py").is_symlink()
    assert "is a symbolic link" in why(check_edits(repo.path, [Replace(path="link.py", old="calc", new="x")], ""))


@pytest.mark.parametrize(
    "edit", [Write(path="libs/sub", content="x"), Write(path="libs/sub/x", content="x"), delete("libs/sub")]
)
def test_a_submodule_without_gitmodules_is_not_torn_out(repo: Repo, edit: Edit) -> None:
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.head()},libs/sub")
    (repo.path / "libs/sub").mkdir(parents=True)
    assert "is a submodule" in why(check_edits(repo.path, [edit], ""))


def test_deletes_count_for_the_writes_that_need_them_in_any_order(repo: Repo) -> None:
    repo.commit({"pkg/a.py": "a\n", "pkg/sub/b.py": "b\n", "mod.py": "m\n"})
    into_folder: list[Edit] = [Write(path="mod.py/x.py", content="new\n"), delete("mod.py")]
    to_file: list[Edit] = [Write(path="pkg", content="new\n"), delete("pkg/a.py"), delete("pkg/sub/b.py")]
    assert after(check_edits(repo.path, into_folder, "")) == {"mod.py": None, "mod.py/x.py": b"new\n"}
    assert after(check_edits(repo.path, to_file, "")) == {"pkg": b"new\n", "pkg/a.py": None, "pkg/sub/b.py": None}
    assert "it is a folder" in why(check_edits(repo.path, to_file[:2], ""))


# --- nothing leaks

SECRETS = {
    "ignored": ("ignored/x.py", False, "hunter2hunter2"),
    "not tracked": ("loose.py", False, "hunter2hunter2"),
    "secret by its name": ("id_rsa", True, "hunter2hunter2"),
    "settings": (".env", True, "hunter2hunter2"),
    "a key in a source": ("app.py", True, "ghp_" + "a1B2" * 9),
}


@pytest.mark.parametrize(("name", "tracked", "secret"), SECRETS.values(), ids=SECRETS)
def test_nothing_that_may_not_be_shown_is_quoted_back(repo: Repo, name: str, tracked: bool, secret: str) -> None:
    repo.write({name: f"A=1\nTOKEN={secret}\nB=2\n"})
    if tracked:
        repo.git("add", "--force", name)
    edits: list[Edit] = [Replace(path=name, old="A=1\nTOKEN=guess\nB=2\n", new=""), Write(path=name, content="A=1\n")]
    for edit in edits:
        checked = check_edits(repo.path, [edit], "")
        assert isinstance(checked, Mismatched)
        assert secret not in render_mismatches(checked.mismatches)


def test_an_ignored_file_does_not_get_into_a_commit_by_an_edit(repo: Repo) -> None:
    repo.write({"ignored/x.py": "A=1\nTOKEN=hunter2\n", "ignored/:[a]*.py": "A=1\n"})
    for edit in (
        Replace(path="ignored/x.py", old="A=1", new="A=2"),
        *map(delete, ("ignored/x.py", "ignored/:[a]*.py")),
    ):
        assert "git ignores" in why(check_edits(repo.path, [edit], ""))


def test_a_mask_is_no_place_to_edit(repo: Repo) -> None:
    repo.commit({"app.py": f"T = '{'ghp_' + 'a1B2' * 9}'\nx = 1\n"})
    edit = Replace(path="app.py", old=f"T = '{MASK}'\nx = 1\n", new="x = 2\n")
    assert "stands for a secret" in why(check_edits(repo.path, [edit], seen(repo, "app.py")))
