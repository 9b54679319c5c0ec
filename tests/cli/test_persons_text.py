"""What a person writes in an editor is kept as it is; only the lines quoted to them are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from gremlins.cli.persons_text import edited


def test_a_heading_of_the_persons_own_is_kept_and_a_long_question_is_wrapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncp "$1" "{tmp_path}/seen"\nprintf "# Mine\\n\\nthe first\\n" >> "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    assert edited("which of them? " * 20).strip() == "# Mine\n\nthe first"
    assert max(map(len, (tmp_path / "seen").read_text().splitlines())) <= 80
