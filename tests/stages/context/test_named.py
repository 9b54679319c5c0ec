"""What a task names is shown, in every form; what only looks like it does not eat the budget."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.context import visible
from gremlins.stages.context.kinds import factor_of, is_prose, kind_factor
from gremlins.stages.context.pack import Subject, build_pack
from gremlins.stages.context.ranking import find_mentions
from gremlins.stages.context.reading import Files
from gremlins.stages.context.showing import estimate_tokens, share_out
from tests.conftest import Repo
from tests.time_limit import DEADLINE

NOISE = {f"src/other/m{n}.py": f"def other_{n}():\n    return {n}\n" * 400 for n in range(30)}


def shown(repo: Repo, task: str, budget: int = 20_000, **subject: str) -> dict[str, str]:
    found = build_pack(repo.path, Subject(task, **subject), budget=budget)
    return {entry.path: entry.form for entry in found.entries}


@pytest.mark.parametrize(
    "path",
    ["Makefile", "Dockerfile", ".gitignore", "docs/CODEOWNERS", "tests/test_odd.py", "data/rates.csv", "README.md"],
)
def test_a_named_file_is_shown_whole_with_a_suffix_or_without(repo: Repo, path: str) -> None:
    repo.commit({**NOISE, path: "".join(f"line,{n}\n" for n in range(600))})
    assert shown(repo, f"Please mend the {path.rpartition('/')[2]} file")[path] == "whole"


def test_more_named_files_than_have_room_get_fair_shares(repo: Repo) -> None:
    large = {f"src/big{n}.py": f"def f{n}():\n    return 'needle'\n\n\n" * 1_500 for n in range(3)}
    repo.commit({**NOISE, **large, "src/small.py": "x = 1\n"})
    found = shown(repo, "Change src/big0.py, src/big1.py, src/big2.py and src/small.py")
    assert [found[f"src/big{n}.py"] for n in range(3)] == ["slice"] * 3
    assert found["src/small.py"] == "whole"


def test_all_that_is_guessed_makes_room_for_a_named_file(repo: Repo) -> None:
    unit = "def f():\n    return 'needle'\n\n\n"
    large = unit * (18_900 // estimate_tokens(unit))
    repo.commit({**NOISE, "README.md": "words of the project\n" * 400, "src/big.py": large})
    assert shown(repo, "`needle` in src/big.py is wrong, as other_3 is")["src/big.py"] == "whole"


def test_blank_lines_beside_what_is_shown_are_shown(repo: Repo) -> None:
    many = "".join(f"def f{n}():\n    return {n}\n" for n in range(4_000))
    repo.commit({**NOISE, "src/big.py": f"{many}{BLANKS}def needle():\n    return 1\n{BLANKS}{many}"})
    lines = lines_of(repo, "src/big.py", "`needle` in src/big.py is wrong")
    assert lines >= set(range(8_001, 8_001 + 2 * len(BLANKS) + 2))


BLANKS = "\n" * 9


def test_shares_are_fair() -> None:
    assert share_out([10, 200, 300], 250) == [10, 120, 120]
    assert share_out([1, 2], 10) == [1, 2]
    assert share_out([10, 160, 300], 250) == [10, 160, 80]  # one that nearly fits does
    assert share_out([], 5) == []


def lines_of(repo: Repo, path: str, task: str) -> set[int]:
    """The lines of a file that are shown in part."""
    lines = visible(build_pack(repo.path, Subject(task), budget=20_000).text)[path]
    assert lines is not None
    return lines


def test_data_and_translations_leave_the_room_to_code_and_show_both_ends(repo: Repo) -> None:
    words = {
        f"src/i18n/{name}.ts": "export default {\n" + f'\tkey: "{name}",\n' * 9_000 + "}\n" for name in ("de", "fr")
    }
    repo.commit({**NOISE, **words, "src/big.py": "def f():\n    return 'needle'\n\n\n" * 1_400})
    task = "Change src/i18n/de.ts, src/i18n/fr.ts and src/big.py"
    assert shown(repo, task)["src/big.py"] == "whole"
    assert lines_of(repo, "src/i18n/fr.ts", task) >= {1, 9_001, 9_002}


def test_the_copy_of_a_named_file_in_another_is_shown(repo: Repo) -> None:
    inner = "".join(f"int inner_{n}() {{ return {n}; }}\n" for n in range(150))
    outer = "".join(f"int outer_{n}() {{ return {n}; }}\n" for n in range(4_000))
    repo.commit({**NOISE, "include/inner.h": inner, "single/all.h": outer + inner + outer})
    lines = lines_of(repo, "single/all.h", "Change include/inner.h and single/all.h")
    assert lines >= set(range(4_001, 4_151))


def test_a_class_too_long_to_be_shown_takes_no_room_from_the_ends_of_its_file(repo: Repo) -> None:
    methods = "".join(f"    def method_{n}(self):\n        return {n}\n\n" for n in range(3_000))
    repo.commit({**NOISE, "src/big.py": f"import os\n\n\nclass TheOne:\n{methods}\n\nlast = 1\n"})
    lines = lines_of(repo, "src/big.py", "`TheOne.method_1500` in src/big.py is wrong")
    assert lines >= {1, 4, 4_505, 4_506, 9_007}


def test_a_name_that_several_files_have_shows_them_or_is_told(repo: Repo) -> None:
    few = {f"few{n}/few.py": f"x = {n}\n" for n in range(3)}
    repo.commit({**NOISE, **few, **{f"many{n}/many.py": f"x = {n}\n" for n in range(9)}})
    found = shown(repo, "few.py fails")
    assert {found[path] for path in few} == {"whole"}
    told = build_pack(repo.path, Subject("many.py fails"), budget=20_000).text
    assert "many.py: 9 files are called so: many0/many.py, many1/many.py," in told


def test_what_the_task_names_by_half_a_path_comes_after_what_it_names(repo: Repo) -> None:
    large = "def f():\n    return 'needle'\n\n\n" * 1_400
    repo.commit({**NOISE, "src/lib/big.py": large, "old/lib/big.py": large})
    found = shown(repo, "lib/big.py is wrong: change src/lib/big.py")
    assert (found["src/lib/big.py"], found["old/lib/big.py"]) == ("whole", "slice")


FRAMES = {
    "Python": 'Traceback:\n  File "/srv/app/src/core/decoder.py", line 3, in run\n',
    "JavaScript": "    at parse (/srv/app/src/core/decoder.js:3:14)\n",
    "Java": "\tat com.acme.core.Decoder.run(Decoder.java:3)\n",
    "Kotlin": "\tat com.acme.core.Parser$Inner.run(Parser.kt:3)\n",
    "C#": "   at Acme.Core.Coder.Run() in /srv/app/src/core/Coder.cs:line 3\n",
    "PHP": "#0 /srv/app/src/core/decoder.php(3): Decoder->run()\n",
    "PHP fatal": "PHP Fatal error: x in /srv/app/src/core/decoder.php on line 3\n",
    "Perl": "Died at src/core/Decoder.pm line 3.\n",
    "Go": "main.run()\n\t/srv/app/src/core/decoder.go:3 +0x1d\n",
    "Rust": "thread 'main' panicked at src/core/decoder.rs:3:9:\n",
    "Ruby": "src/core/decoder.rb:3:in `run': x (RuntimeError)\n",
}
PLACES = {"Java": "com/acme/core/Decoder.java", "Kotlin": "com/acme/core/Parser.kt", "C#": "core/Coder.cs",
          "Perl": "core/Decoder.pm"}  # fmt: skip


@pytest.mark.parametrize("form", FRAMES)
def test_a_frame_means_the_file_at_its_whole_path(repo: Repo, form: str) -> None:
    suffix = {
        "Python": "py",
        "JavaScript": "js",
        "PHP": "php",
        "PHP fatal": "php",
        "Go": "go",
        "Rust": "rs",
        "Ruby": "rb",
    }
    right = f"src/{PLACES.get(form, f'core/decoder.{suffix.get(form)}')}"
    name = right.rpartition("/")[2]
    repo.commit({right: "1\n2\n3\n4\n", f"vendor/json/{name}": "1\n2\n3\n4\n", f"lib/x/{name}": "1\n2\n3\n4\n"})
    found = find_mentions(Files(repo.path).corpus, FRAMES[form], strength=1.0)
    assert {(one.path, one.line) for one in found if one.line} == {(right, 3)}


def test_a_task_in_any_script_finds_its_file(repo: Repo) -> None:
    words = {"zh": "购物车的总价计算错误", "ja": "合計金額の計算が間違っている", "ru": "корзина считает сумму неверно"}
    files = {f"src/{key}.py": f"# {text}\ndef f():\n    pass\n" * 5 for key, text in words.items()}
    repo.commit({**NOISE, **files})
    for key, task in (("zh", "总价计算错误"), ("ja", "計算が間違い"), ("ru", "Корзины считают неверную сумму")):
        assert next(path for path in shown(repo, task) if path.startswith("src/")) == f"src/{key}.py"


def test_where_nothing_matches_the_budget_is_used_all_the_same(repo: Repo) -> None:
    repo.commit(NOISE)
    found = build_pack(repo.path, Subject("Καλημέρα"), budget=20_000)
    assert found.tokens > 12_000


def test_translations_and_forms_do_not_eat_the_budget(repo: Repo) -> None:
    text = "The widget frobnicates the gadget when it is rendered.\n" * 150
    readmes = {f"docs/readme_{name}.md": text for name in ("cn", "de", "es", "fr", "it", "ja", "ko", "nl", "pt")}
    form = ".github/ISSUE_TEMPLATE/bug.md"
    form_text = "Describe the bug\nI searched for other issues\n"
    repo.commit({**NOISE, **readmes, form: form_text, "src/widget.py": "class Widget: pass\n"})
    found = build_pack(repo.path, Subject("Describe the bug\nThe widget frobnicates the gadget"), budget=20_000)
    spent = sum(entry.tokens for entry in found.entries if entry.path in readmes or entry.path == form)
    assert spent <= 0.1 * 20_000
    assert "src/widget.py" in [entry.path for entry in found.entries if entry.form == "whole"]
    assert all(map(is_prose, readmes))


@pytest.mark.parametrize(
    ("path", "text", "attributes", "factor"),
    [
        ("src/a.py", "x = 1\n", {}, 1.0),
        ("src/a.py", "x = 1\n", {"linguist-generated": True}, 0.2),
        ("vendor/a.py", "x = 1\n", {"linguist-vendored": False}, 1.0),
        ("vendor/a.py", "x = 1\n", {}, 0.2),
        ("src/a_pb2.py", "# Generated by the protocol buffer compiler. DO NOT EDIT!\n", {}, 0.2),
        ("src/gen.py", "TEXT = 'DO NOT EDIT'\n", {}, 1.0),
        ("src/blob.py", ("QUJD" * 19 + "\n") * 90, {}, 0.05),
        (".github/ISSUE_TEMPLATE/bug.md", "x\n", {}, 0.05),
    ],
)
def test_generated_vendored_and_encoded_files_are_known(
    path: str, text: str, attributes: dict[str, bool], factor: float
) -> None:
    assert factor_of(path, text, attributes) == factor
    assert kind_factor("src/a.py") == 1.0


def test_attributes_of_git_are_read(repo: Repo) -> None:
    repo.commit({".gitattributes": "api/** linguist-generated\nvendor/ours.py -linguist-vendored\n",
                 "api/a.py": "x = 1\n", "vendor/ours.py": "x = 1\n", "vendor/theirs.py": "x = 1\n"})  # fmt: skip
    sources = Files(repo.path).corpus.sources
    assert [sources[path].factor for path in ("api/a.py", "vendor/ours.py", "vendor/theirs.py")] == [0.2, 1.0, 0.2]


def test_a_review_shows_a_part_of_every_patch(repo: Repo) -> None:
    base = repo.head()
    repo.commit({"src/large.py": "".join(f"value_{n} = {n}\n" for n in range(9_000)), "src/small.py": "x = 1\n"})
    text = build_pack(repo.path, Subject("Review", diff_base=base), budget=20_000).text
    assert "+x = 1\n" in text
    assert "+value_0 = 0\n+value_1 = 1\n" in text
    assert "more lines of this patch are not shown]" in text


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_fifty_thousand_files_stay_within_400_mb_soak(repo: Repo) -> None:
    body = "".join(f"def handle_request_{n}(session, payload):\n    return session.send({n})\n\n\n" for n in range(20))
    count = 50_000 if os.environ.get("GREMLINS_SOAK") else 2_000
    repo.commit({f"src/pkg{n // 100}/module_{n}.py": f"VALUE_{n} = {n}\n{body}" for n in range(count)})
    script = (
        "import sys; from pathlib import Path; from gremlins.stages.context.pack import *\n"
        "build_pack(Path(sys.argv[1]), Subject('VALUE_1711 is wrong'), budget=60_000)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"  # `ru_maxrss` is inherited
    )
    argv = [sys.executable, "-c", script, str(repo.path)]
    done = subprocess.run(argv, check=True, timeout=DEADLINE, capture_output=True, text=True)
    assert int(done.stdout) < 400 * 1024
