from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gremlins.config import ClientSpec, LoadedSettings, Settings, known_settings, load_settings, value_of
from gremlins.errors import ConfigError
from gremlins.paths import Home

Load = Callable[..., LoadedSettings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings from the texts of the two files and some variables."""

    def load(repo: str = "", home: str = "", **env: str) -> LoadedSettings:
        for file, text in ((repo_file(tmp_path), repo), (home_file(tmp_path), home)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return load_settings(tmp_path / "repo", Home(tmp_path / "home"), env)

    return load


def repo_file(tmp_path: Path) -> Path:
    return tmp_path / "repo" / ".gremlins" / "config.toml"


def home_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "config.toml"


CONTRACT = {
    "client": "claude:claude-sonnet-5-5",
    "verify": (),
    "batch.poll_initial": 20,
    "batch.poll_max": 600,
    "batch.retry_initial": 30,
    "batch.retry_max": 600,
    "batch.http_timeout": 60,
    "batch.on_expired": "live",
    "batch.stop_wait": 30,
    "batch.context_tokens": 60_000,
    "batch.reconcile_grace": 60,
    "live.idle_timeout": 360,
    "dispatch.pipeline": "local",
    "dispatch.retry_cap": 5,
    "dispatch.spawn_cap": 15,
    "dispatch.backoff_initial": 30,
    "dispatch.backoff_max": 1800,
    "dispatch.max_running": 3,
    "dispatch.max_parked": 200,
    "dispatch.interval": 5,
    "dispatch.start_window": 20,
    "dispatch.deadline": 14_400,
    "spend.per_attempt": 5.0,
    "spend.per_bead": None,
    "spend.per_day": 25.0,
}


@pytest.mark.parametrize(("key", "default"), CONTRACT.items())
def test_defaults_are_the_promised_ones(key: str, default: object) -> None:
    assert value_of(Settings(), key) == default


def test_every_setting_is_described() -> None:
    settings = known_settings()
    assert {setting.key for setting in settings} >= set(CONTRACT)
    assert all(setting.meaning for setting in settings)
    assert all(setting.default == value_of(Settings(), setting.key) for setting in settings)


def test_without_any_file_all_are_defaults(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, Home(tmp_path / "none"), {})
    assert loaded == LoadedSettings(Settings(), {})


def test_outside_of_a_repository_the_persons_file_holds(load: Load, tmp_path: Path) -> None:
    load(repo="[batch]\npoll_max = 1", home="[live]\nidle_timeout = 2")
    settings = load_settings(None, Home(tmp_path / "home"), {}).settings
    assert (settings.batch.poll_max, settings.live.idle_timeout) == (600, 2)


def test_later_places_win_and_each_value_knows_its_source(load: Load, tmp_path: Path) -> None:
    loaded = load(
        repo="[batch]\npoll_initial = 1\nretry_initial = 1\n\nstop_wait = 1",
        home="\n[batch]\npoll_initial = 2\nretry_initial = 2",
        GREMLINS_BATCH__POLL_INITIAL="0.05",
    )
    batch = loaded.settings.batch
    assert (batch.poll_initial, batch.retry_initial, batch.stop_wait) == (0.05, 2, 1)
    assert {key: str(source) for key, source in loaded.sources.items()} == {
        "batch.poll_initial": "GREMLINS_BATCH__POLL_INITIAL",
        "batch.retry_initial": f"{home_file(tmp_path)}:4",
        "batch.stop_wait": f"{repo_file(tmp_path)}:5",
    }


@pytest.mark.parametrize(
    "text",
    ["[batch]\npoll_initial = 0.05", "batch.poll_initial = 0.05", "batch = { poll_initial = 0.05 }"],
)
def test_every_way_of_toml_to_write_a_key_is_read(load: Load, text: str) -> None:
    loaded = load(text)
    assert loaded.settings.batch.poll_initial == 0.05
    assert loaded.sources["batch.poll_initial"].line == text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        ("[batch]\npol_initial = 5", 2, "unknown setting `batch.pol_initial`", "batch.poll_initial"),
        ("\n[bach]\npoll_max = 5", 3, "unknown section `bach`", "batch.poll_max"),
        ("[dispatsch]\nfoo = 5", 2, "unknown section `dispatsch`", "dispatch"),
        ("[nonsense]", 1, "unknown setting `nonsense`", "doctor"),
        ("retry_cap = 5", 1, "unknown setting `retry_cap`", "dispatch.retry_cap"),
        ("batch = 5", 1, "`batch` is a section", "[batch]"),
        ("[batch]\npoll_max = '5'", 2, 'should be a number, not `"5"`', None),
        ("[batch]\npoll_max = true", 2, "should be a number, not `true`", None),
        ("[batch]\npoll_max = 0", 2, "should be greater than 0", None),
        ("[batch]\npoll_max = inf", 2, "should be a finite number", None),
        ("[batch]\npoll_max = nan", 2, "should be a finite number", None),
        ("[dispatch]\nretry_cap = 1.5", 2, "should be a whole number", None),
        ("[dispatch]\nretry_cap = 0", 2, "should be greater than or equal to 1", None),
        ("[batch]\non_expired = 'resubmitt'", 2, "should be 'live', 'resubmit' or 'fail'", "resubmit"),
        ("client = 'claude'", 1, "should be PROVIDER:MODEL", None),
        ("client.provider = 'claude'", 1, "should be text, not a table", None),
        ("verify = [1]", 1, "should be text", None),
        ("verify = ['a', ' ']", 1, "should not be empty", None),
        ("[batch]\npoll_initial = 700", 2, "above `batch.poll_max`, 600 (the default)", "batch.poll_max"),
        ("[dispatch]\nbackoff_initial = 5\nbackoff_max = 4", 2, "above `dispatch.backoff_max`, 4", None),
        ("client = = 1", 1, "not TOML", None),
        ("[batch]\npoll_max = [1,\n", 3, "not TOML", None),
        ("[batch]\npoll_max = 1\npoll_max = 2", 3, "not TOML", None),
    ],
)
def test_a_wrong_file_is_named_with_its_line(
    load: Load, tmp_path: Path, text: str, line: int, says: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    error = caught.value
    assert error.message.startswith(f"{repo_file(tmp_path)}:{line}: ")
    assert says in error.message
    assert hint is None or hint in (error.hint or "")
    assert error.exit_code == 1


def test_a_file_that_is_not_text_is_named(load: Load, tmp_path: Path) -> None:
    load()
    home_file(tmp_path).write_bytes(b"a = 1\n\xff")
    with pytest.raises(ConfigError, match=r"config\.toml:2: is not UTF-8"):
        load_settings(None, Home(tmp_path / "home"), {})


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    home_file(tmp_path).mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(None, Home(tmp_path / "home"), {})


SECRET = "sk-ant-api03-abcdefghijklmnop"


@pytest.mark.parametrize("place", ["repo", "home"])
@pytest.mark.parametrize(
    "key", ["ANTHROPIC_API_KEY", "api_key", "batch.auth_token", "anthropic.token", "live.secret", "x.y.password"]
)
def test_a_secret_in_a_file_is_refused_and_never_shown(load: Load, place: str, key: str) -> None:
    with pytest.raises(ConfigError, match="secrets only come from the environment: set ANTHROPIC_API_KEY") as caught:
        load(**{place: f"nonsense = 1\n{key} = '{SECRET}'"})
    assert caught.value.line == 2
    assert SECRET not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize("text", [f"client = '{SECRET}'", f"verify = {{ a = '{SECRET}' }}", f"verify = [['{SECRET}']]"])
def test_a_key_in_the_wrong_place_is_not_shown(load: Load, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert SECRET not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize("key", ["base_url", "anthropic.base_url", "ANTHROPIC_BASE_URL"])
def test_a_base_url_in_a_file_is_refused(load: Load, key: str) -> None:
    with pytest.raises(ConfigError, match="set ANTHROPIC_BASE_URL"):
        load(f"{key} = 'http://gateway.example'")


PERSONAL = [
    ("notify = 'notify-send done'", "notify", "notify-send done"),
    ("notify = ['notify-send', 'done']", "notify", ("notify-send", "done")),
    ("[live]\npermission_mode = 'bypassPermissions'", "live.permission_mode", "bypassPermissions"),
    ("[live]\nallowed_tools = ['Bash']", "live.allowed_tools", ("Bash",)),
    ("[live]\nbash = true", "live.bash", True),
]


@pytest.mark.parametrize(("text", "key", "value"), PERSONAL)
def test_a_repository_cannot_widen_what_is_allowed(load: Load, text: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"a repository's file cannot set `{key}`"):
        load(repo=text)
    assert value_of(load(home=text).settings, key) == value


@pytest.mark.parametrize(
    ("repo", "home", "cap", "held"),
    [
        ("[dispatch]\nretry_cap = 100", "", 5, True),
        ("[dispatch]\nretry_cap = 2", "", 2, False),
        ("[dispatch]\nretry_cap = 100", "[dispatch]\nretry_cap = 9", 9, False),
        ("[dispatch]\nretry_cap = 2", "[dispatch]\nretry_cap = 9", 9, False),
        ("", "[dispatch]\nretry_cap = 100", 100, False),
    ],
)
def test_a_repository_may_only_lower_a_cap(load: Load, repo: str, home: str, cap: int, held: bool) -> None:
    loaded = load(repo, home)
    assert loaded.settings.dispatch.retry_cap == cap
    assert [("retry_cap" in sentence and "config.toml:2" in sentence) for sentence in loaded.held] == [True] * held
    assert ("dispatch.retry_cap" in loaded.sources) == (cap != 5)


def test_a_repository_cannot_bypass_permissions(load: Load) -> None:
    with pytest.raises(ConfigError, match="a repository's file cannot set"):
        load(repo="[live]\nbypass = true")
    with pytest.raises(ConfigError, match="unknown setting"):
        load(home="[live]\nbypass = true")


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("GREMLINS_CLIENT", "anthropic:claude-opus-5-5", "client", "anthropic:claude-opus-5-5"),
        ("GREMLINS_VERIFY", "make test", "verify", ("make test",)),
        ("GREMLINS_VERIFY", '["make lint", "make test"]', "verify", ("make lint", "make test")),
        ("GREMLINS_VERIFY", "[ -f Makefile ]", "verify", ("[ -f Makefile ]",)),
        ("GREMLINS_VERIFY", "[]", "verify", ()),
        ("GREMLINS_VERIFY", "", "verify", ("from the file",)),
        ("GREMLINS_NOTIFY", "notify-send hi", "notify", "notify-send hi"),
        ("GREMLINS_NOTIFY", '["notify-send", "hi"]', "notify", ("notify-send", "hi")),
        ("GREMLINS_LIVE__BASH", "true", "live.bash", True),
        ("GREMLINS_LIVE__RESUME_BACKOFF", "[0.1, 0.2]", "live.resume_backoff", (0.1, 0.2)),
        ("GREMLINS_LIVE__RESUME_BACKOFF", "0.1", "live.resume_backoff", (0.1,)),
        ("GREMLINS_SPEND__PER_DAY", "2.50", "spend.per_day", 2.5),
        ("GREMLINS_SPEND__PER_DAY", "none", "spend.per_day", None),
        ("GREMLINS_DISPATCH__MAX_RUNNING", "7", "dispatch.max_running", 7),
    ],
)
def test_a_variable_sets_a_setting(load: Load, variable: str, text: str, key: str, value: object) -> None:
    loaded = load(repo="verify = 'from the file'", **{variable: text})
    assert value_of(loaded.settings, key) == value


@pytest.mark.parametrize(
    "variable", ["GREMLINS_HOME", "GREMLINS_CLAUDE_BIN", "GREMLINS_LOCK_FD", "GREMLINS_WHATEVER", "GREMLINS_", "OTHER"]
)
def test_variables_that_are_no_settings_are_passed_over(load: Load, variable: str) -> None:
    assert load(**{variable: "x"}).settings == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "says", "hint"),
    [
        ("GREMLINS_BATCH__POLL_INTIAL", "1", "unknown setting", "did you mean GREMLINS_BATCH__POLL_INITIAL?"),
        ("GREMLINS_BACH__POLL_INITIAL", "1", "unknown setting", "did you mean GREMLINS_BATCH__POLL_INITIAL?"),
        ("GREMLINS_NO__SUCH", "1", "unknown setting", "doctor"),
        ("GREMLINS_BATCH__POLL_INITIAL", "soon", "should be a number, not `soon`", ""),
        ("GREMLINS_BATCH__POLL_INITIAL", "inf", "should be a finite number", ""),
        ("GREMLINS_BATCH__POLL_INITIAL", "601", "above `batch.poll_max`", "batch.poll_max"),
        ("GREMLINS_CLIENT", "claude", "should be PROVIDER:MODEL", ""),
    ],
)
def test_a_wrong_variable_is_named(load: Load, variable: str, text: str, says: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{variable: text})
    assert caught.value.message.startswith(f"{variable}: ")
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_ceiling_lowered_in_a_later_place_simply_wins(load: Load) -> None:
    batch = load("[batch]\npoll_initial = 30", GREMLINS_BATCH__POLL_MAX="0.1").settings.batch
    assert (batch.poll_initial, batch.poll_max) == (30, 0.1)


@pytest.mark.parametrize(
    ("text", "provider", "model"),
    [
        ("claude:claude-sonnet-5-5", "claude", "claude-sonnet-5-5"),
        ("scripted:/tmp/a:b.json", "scripted", "/tmp/a:b.json"),
        (" openai:gpt-x ", "openai", "gpt-x"),
    ],
)
def test_a_client_is_a_provider_and_a_model(text: str, provider: str, model: str) -> None:
    spec = ClientSpec.parse(text)
    assert spec == ClientSpec(provider, model)
    assert str(spec) == text.strip()


@pytest.mark.parametrize("text", ["", "claude", "claude:", ":x", "Claude:x", "claude :x", "claude: "])
def test_a_client_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="PROVIDER:MODEL"):
        ClientSpec.parse(text)


VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "client": st.sampled_from(["claude:a", "scripted:x:y"]),
    "verify": st.lists(st.sampled_from(["make", "a b"])),
    "notify": st.sampled_from([None, "x y", ["x", "y"]]),
    "batch": st.fixed_dictionaries({}, optional={"poll_max": st.floats(0.01, 1e6), "max_tokens": st.integers(1)}),
    "live": st.fixed_dictionaries({}, optional={"resume_backoff": st.lists(st.floats(0, 1e6))}),
    "spend": st.fixed_dictionaries({}, optional={"per_day": st.none() | st.floats(0, 1e6)}),
}


WHOLE = "client = 'claude:m'\nverify = ['true']\n[batch]\npoll_initial = 3\n[spend]\nmax_usd_per_gremlin = 1.5\n"
PIECES = st.binary(max_size=8) | st.sampled_from(
    [b"[batch]\n", b"= ", b"'''", b"nan", b"1e999", b"{a=1}", b"[[x]]\n", b"\0"]
)


@settings(max_examples=150)
@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3), PIECES), min_size=1, max_size=4),
    env=st.text(max_size=9),
)
def test_a_file_of_any_bytes_is_settings_or_named_as_wrong(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[float, float, bytes]], env: str
) -> None:
    text, folder = WHOLE.encode(), tmp_path_factory.getbasetemp() / "any-bytes"
    for where, share, piece in cuts:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + int(share * len(text)) :]
    repo_file(folder).parent.mkdir(parents=True, exist_ok=True)
    repo_file(folder).write_bytes(text)
    named = re.compile("config.toml|GREMLINS_BATCH__POLL_MAX")
    try:
        load_settings(folder / "repo", Home(folder / "home"), {"GREMLINS_BATCH__POLL_MAX": env})
    except ConfigError:
        with pytest.raises(ConfigError, match=named):
            load_settings(folder / "repo", Home(folder / "home"), {"GREMLINS_BATCH__POLL_MAX": env})


@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_settings_survive_json(values: dict[str, Any]) -> None:
    settings = Settings.model_validate(values)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_a_copy_of_an_older_or_newer_version_is_read() -> None:
    text = json.dumps({"client": "claude:x", "later": {"a": 1}, "batch": {"poll_max": 5, "new": True}})
    settings = Settings.model_validate_json(text)
    assert (settings.client, settings.batch.poll_max, settings.batch.poll_initial) == ("claude:x", 5, 20)


def test_reading_settings_loads_nothing_heavy() -> None:
    code = "import sys, gremlins.config; print({'yaml', 'rich', 'anthropic', 'genai_prices'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_documents_example_is_read(load: Load) -> None:
    example = DOCUMENT.read_text().split("```toml\n")[1].split("```")[0]
    settings = load(repo=example).settings
    assert (settings.verify, settings.spend.per_day) == (("make lint", "make test"), 20)


def test_the_document_has_every_setting_with_its_default() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    written = {row[1].strip(" `"): row[2].strip(" `") for row in rows}
    assert written == {setting.key: _as_written(setting.default) for setting in known_settings()}


def _as_written(default: Any) -> str:
    match default:
        case None | ():
            return "none"
        case bool():
            return str(default).lower()
        case tuple():
            return ", ".join(entry if isinstance(entry, str) else f"{entry:g}" for entry in default)
        case float():
            return f"{default:.10g}"
        case _:
            return str(default)
