from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gremlins.config import ClientSpec, Settings
from gremlins.errors import ConfigError, NotFound
from gremlins.pipeline.file import (
    FrozenPipeline,
    Pipeline,
    PipelineFile,
    find_pipeline,
    freeze,
    list_pipelines,
    load_pipeline,
)
from gremlins.stages.spec import (
    STAGE_TYPES,
    AgentStage,
    Exec,
    LoopStage,
    Parallel,
    PromptStage,
    Verify,
    WaitReview,
    named,
    walk,
)

PROVIDERS = {"claude", "anthropic", "copilot", "scripted"}
Load = Callable[[str], Pipeline]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".gremlins" / "pipelines").mkdir(parents=True)
    (folder / ".gremlins" / "prompts").mkdir()
    (folder / ".gremlins" / "prompts" / "summary.md").write_text("Sum it up.\n")
    return folder


def mine(project: Path) -> Path:
    return project / ".gremlins" / "pipelines" / "mine.yaml"


@pytest.fixture
def load(project: Path) -> Load:
    def load(text: str) -> Pipeline:
        mine(project).write_text(text)
        return load_pipeline(find_pipeline("mine", project, cwd=project), providers=PROVIDERS)

    return load


EXAMPLE = """\
name: mine
client: claude:claude-sonnet-5-5      # default of every agent stage
mode: batch                            # optional default of every agent stage
evidence: commits
stages:
  - plan                               # short for {type: plan}
  - {type: implement, mode: batch}
  - {type: exec, name: check, cmds: ["pytest -q"], timeout: 600}
  - {type: verify, cmds: ["make test"], max_attempts: 3}
  - {type: review-code, prompt: .gremlins/prompts/summary.md}
  - {type: agent, name: summary, prompt: .gremlins/prompts/summary.md, mode: live}
"""


def test_a_pipeline_says_what_its_file_says(load: Load) -> None:
    pipeline = load(EXAMPLE)
    assert (pipeline.name, pipeline.client, pipeline.mode, pipeline.evidence) == (
        "mine",
        "claude:claude-sonnet-5-5",
        "batch",
        "commits",
    )
    assert [stage.name for stage in pipeline.stages] == [
        "plan",
        "implement",
        "check",
        "verify",
        "review_code",
        "summary",
    ]
    assert pipeline.stages[2] == Exec(name="check", cmds=("pytest -q",), timeout=600)
    assert pipeline.stages[5] == PromptStage(name="summary", prompt=".gremlins/prompts/summary.md", mode="live")


def test_unsaid_things_have_their_defaults(load: Load) -> None:
    verify, waits, command = load("stages: [verify, wait-review, {type: exec, cmds: make}]").stages
    assert isinstance(verify, Verify)
    assert (verify.cmds, verify.max_attempts, verify.timeout) == ((), 3, 1800)
    assert isinstance(waits, WaitReview)
    assert waits.timeout == 86_400
    assert isinstance(command, Exec)
    assert (command.cmds, command.timeout) == (("make",), 1800)


NESTED = """\
stages:
  - type: loop
    max: 4
    max_usd: 2.5
    body:
      - handoff
      - plan
      - type: parallel
        max_concurrent: 1
        on_failure: collect
        branches:
          left: [plan, plan]
          right:
            - type: implement
              prompt: missing.md
"""


def test_loops_and_branches_nest(load: Load) -> None:
    pipeline = load(NESTED)
    assert [path for path, _ in walk(pipeline.stages)] == [
        "loop",
        "loop/handoff",
        "loop/plan",
        "loop/parallel",
        "loop/parallel/left/plan",
        "loop/parallel/left/plan-2",
        "loop/parallel/right/implement",
    ]
    assert pipeline.lines["loop/parallel/right/implement", "prompt"] == 15


def test_branches_run_all_at_once_unless_told_otherwise() -> None:
    plan = PromptStage(name="a", prompt="x")
    assert Parallel(branches={"x": (plan,), "y": (plan,)}).concurrency == 2
    assert Parallel(branches={"x": (plan,), "y": (plan,)}, max_concurrent=1).concurrency == 1


def test_a_command_called_true_needs_no_quotes(load: Load) -> None:
    stage = load("stages: [{type: exec, cmds: [true, false]}]").stages[0]
    assert isinstance(stage, Exec)
    assert stage.cmds == ("true", "false")


WRONG = [
    ("", 1, "is empty", None),
    ("# only a comment\n", 1, "is empty", None),
    ("- plan", 1, "a pipeline is a mapping with a list of `stages`", None),
    ("name: x", 1, "has no `stages`", None),
    ("stages:", 1, "`stages` should be a list of at least one stage", None),
    ("stages: []", 1, "`stages` should be a list of at least one stage", None),
    ("stages: plan", 1, "`stages` should be a list of at least one stage", None),
    ("stage: [plan]", 1, "a pipeline has no key `stage`", "did you mean `stages`?"),
    ("stages: [plan]\nmodel: x", 2, "a pipeline has no key `model`", None),
    ("mode: fast\nstages: [plan]", 1, "`mode` should be 'live' or 'batch', not `fast`", None),
    ("stages: [plan]\nevidence: comits", 2, "`evidence` should be 'commits' or 'none'", "did you mean `commits`?"),
    ("name: [a]\nstages: [plan]", 1, "`name` should be text", None),
    ("stages:\n  - plan\n  - plna", 3, "unknown stage type `plna`", "did you mean `plan`?"),
    ("stages:\n  - type: reviewcode", 2, "unknown stage type `reviewcode`", "did you mean `review_code`?"),
    ("stages:\n  - type: 5", 2, "unknown stage type `5`", None),
    ("stages:\n  - name: x\n    type: [plan]", 3, "unknown stage type", None),
    ("stages:\n  - zzz", 2, "unknown stage type `zzz`", "there are plan, implement, verify"),
    ("stages:\n  - plan:", 2, "a stage has no `type`", "write `type: plan`"),
    ("stages:\n  - name: x", 2, "a stage has no `type`", None),
    ("stages:\n  - 5", 2, "a stage is a type, or a mapping with a `type`", None),
    ("stages:\n- type: plan\n  promt: x", 3, "`plan` has no key `promt`", "did you mean `prompt`?"),
    ("stages:\n- type: plan\n  cmds: [x]", 3, "`plan` has no key `cmds`", "it takes client,"),
    ("stages:\n- type: plan\n  prompt_text: x", 3, "`plan` has no key `prompt_text`", None),
    ("stages:\n- type: plan\n  mode_asked: true", 3, "`plan` has no key `mode_asked`", None),
    ("stages:\n- type: plan\n  mode: bach", 3, "`mode` should be 'live' or 'batch', not `bach`", "`batch`"),
    ("stages:\n- type: plan\n  name: 5", 3, "`name` should be text, not `5`", "put it in quotes"),
    ("stages:\n- type: plan\n  name: a/b", 3, "`name` should be 1 to 64 letters", None),
    ("stages:\n- type: plan\n  max_tokens: 0", 3, "should be greater than or equal to 1", None),
    ("stages:\n- type: exec", 2, "`exec` needs `cmds`", None),
    ("stages:\n- type: exec\n  cmds: []", 3, "`cmds` should have at least one entry", None),
    ("stages:\n- type: exec\n  cmds:\n  - make\n  - 5", 5, "`cmds` should be text, not `5`", "put it in quotes"),
    ("stages:\n- type: exec\n  cmds:\n  - ' '", 4, "`cmds` should not be empty", None),
    ("stages:\n- type: exec\n  cmds: {a: b}", 3, "`cmds` should be a list", None),
    ("stages:\n- type: exec\n  cmds: [x]\n  timeout: soon", 4, "`timeout` should be a number, not `soon`", None),
    ("stages:\n- type: exec\n  cmds: [x]\n  timeout: '5'", 4, "`timeout` should be a number", None),
    ("stages:\n- type: exec\n  cmds: [x]\n  timeout: 0", 4, "`timeout` should be greater than 0", None),
    ("stages:\n- type: exec\n  cmds: [x]\n  timeout: .inf", 4, "`timeout` should be a finite number", None),
    ("stages:\n- type: exec\n  cmds: [x]\n  timeout: true", 4, "`timeout` should be a number", None),
    ("stages:\n- type: verify\n  max_attempts: 1.5", 3, "`max_attempts` should be a whole number", None),
    ("stages:\n- type: agent\n  name: x", 2, "`agent` needs `prompt`", None),
    ("stages:\n- agent", 2, "`agent` needs `name`", None),
    ("client: clade:x\nstages: [plan]", 1, "unknown provider `clade`", "did you mean `claude`?"),
    ("client: zzz:x\nstages: [plan]", 1, "unknown provider `zzz`", "there are anthropic, claude"),
    ("client: claude\nstages: [plan]", 1, "`client` should be PROVIDER:MODEL", None),
    ("stages:\n- type: plan\n  client: copilt:x", 3, "unknown provider `copilt`", "did you mean `copilot`?"),
    ("stages:\n- type: loop\n  body: [handoff, plna]", 3, "unknown stage type `plna`", None),
    ("stages:\n- type: loop\n  body: [plan]", 2, "`loop` ends when a handoff says done", None),
    ("stages:\n- type: loop\n  body: [handoff]\n  max: 0", 4, "`max` should be greater than or equal to 1", None),
    ("stages:\n- type: loop\n  body:", 3, "`body` should be a list of at least one stage", None),
    ("stages:\n- type: parallel\n  branches: [plan]", 3, "`branches` should be a mapping", None),
    ("stages:\n- type: parallel\n  branches: {}", 3, "`branches` should have at least one entry", None),
    ("stages:\n- type: parallel\n  branches:\n    a: []", 4, "branch `a` should be a list of at least one", None),
    ("stages:\n- type: parallel\n  branches:\n    a b: [plan]", 4, "should be 1 to 64 letters", None),
    ("stages:\n- type: parallel\n  branches: {a: [plan]}\n  on_failure: colect", 4, "`on_failure`", "`collect`"),
    ("stages: [plan\n", 2, "not YAML", None),
    ("stages:\n\t- plan", 2, "not YAML", None),
    ("stages: [plan]\nname: a: b", 2, "not YAML", None),
    ("stages: [plan]\n---\nstages: [plan]", 2, "not YAML", None),
    ("name: x\nstages: [plan]\x07", 2, "not YAML", None),
    ("name: a\nstages: [plan]\nname: b", 3, "`name` stands here twice, first in line 1", None),
    ("stages:\n- type: plan\n  type: plan", 3, "`type` stands here twice", None),
    ("name: &a x\nstages: [plan]\ndescription: *a", 3, "aliases (`*name`) are not taken here", None),
    ("stages: [plan]\n<<: {name: x}", 2, "a pipeline has no key `<<`", None),
    ("stages:\n- !!python/object/apply:os.getcwd []", 2, "tags (`!name`) are not taken here", None),
    ("stages: [plan]\n? [a]\n: b", 2, "a key has to be a word", None),
    ("stages: " + "[" * 50 + "]" * 50, 1, "is nested too deeply", None),
]


@pytest.mark.parametrize(("text", "line", "says", "hint"), WRONG)
def test_a_wrong_file_is_named_with_its_line(
    load: Load, project: Path, text: str, line: int, says: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.message.startswith(f"{mine(project)}:{line}: ")
    assert says in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert caught.value.exit_code == 1


def test_a_huge_file_is_not_even_parsed(load: Load) -> None:
    with pytest.raises(ConfigError, match="is larger than"):
        load("stages: [" + "plan, " * 50_000 + "plan]")


def test_a_file_that_is_not_text_is_named(load: Load, project: Path) -> None:
    load("stages: [plan]")
    mine(project).write_bytes(b"stages: [plan]\nname: \xff")
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: is not UTF-8"):
        load_pipeline(find_pipeline("mine", project, cwd=project))


@given(text=st.text(alphabet="stage:plan-[]{}&*!|>\"'#\n ,?exc", max_size=80))
def test_any_text_is_a_pipeline_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(f"stages:\n  - {text}")
    with contextlib.suppress(ConfigError):
        assert load_pipeline(PipelineFile("any", file, "file")).stages


def test_names_are_unique_among_neighbours(load: Load) -> None:
    stages = load("stages: [plan, plan, {type: plan, name: plan-2}, {type: exec, name: plan, cmds: [x]}]").stages
    assert [stage.name for stage in stages] == ["plan", "plan-3", "plan-2", "plan-4"]
    assert named(stages) == stages


def test_two_agents_never_write_one_artifact(load: Load) -> None:
    agent = "{type: agent, name: x, prompt: a.md}"
    with pytest.raises(ConfigError, match=r"mine\.yaml:5: .* would both write artifacts/x\.md"):
        load(f"stages:\n- type: parallel\n  branches:\n    a: [{agent}]\n    b: [{agent}]")


# ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_projects_own_pipeline_comes_before_the_built_in_one(project: Path) -> None:
    assert find_pipeline("local", project, cwd=project).where == "built-in"
    own = project / ".gremlins" / "pipelines" / "local.yaml"
    own.write_text("stages: [plan]")
    assert find_pipeline("local", project, cwd=project) == PipelineFile("local", own, "project")
    assert find_pipeline("local", None, cwd=project).where == "built-in"


def test_a_name_that_ends_in_yaml_is_a_path(project: Path) -> None:
    file = project / "sub" / "other.yaml"
    file.parent.mkdir()
    file.write_text("stages: [plan]")
    assert find_pipeline("other.yaml", project, cwd=file.parent) == PipelineFile("other", file, "file")
    assert find_pipeline(str(file), None, cwd=Path("/")).path == file
    assert load_pipeline(find_pipeline("sub/other.yaml", project, cwd=project)).name == "other"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("loca", "did you mean `local`?"), ("zzzz", "there are batch, boss, gh, local"), ("../x/mine", None), ("", None)],
)
def test_an_unknown_name_offers_the_nearest(project: Path, name: str, hint: str | None) -> None:
    with pytest.raises(NotFound) as caught:
        find_pipeline(name, project, cwd=project)
    assert caught.value.exit_code == 6
    assert hint is None or caught.value.hint == hint


def test_a_missing_file_is_not_found(project: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml"):
        find_pipeline("nowhere.yaml", project, cwd=project)


def test_the_list_shows_what_can_be_named_wrong_files_included(project: Path) -> None:
    mine(project).write_text("# First line,\n# second line.\nstages: [plan, implement]")
    (mine(project).parent / "broken.yaml").write_text("stages: [plna]")
    (mine(project).parent / "batch.yaml").write_text("description: Ours.\nstages: [plan]")
    listed = {info.name: info for info in list_pipelines(project)}
    assert list(listed) == ["batch", "broken", "mine", "boss", "gh", "local"]
    assert (listed["mine"].description, listed["mine"].stages) == ("First line, second line.", ("plan", "implement"))
    assert "unknown stage type `plna`" in (listed["broken"].error or "")
    assert (listed["batch"].where, listed["batch"].description) == ("project", "Ours.")


FIVE = ["plan", "implement", "verify", "review_code", "address_code"]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("local", FIVE),
        ("batch", FIVE),
        ("boss", ["loop", "handoff", *FIVE]),
        ("gh", [*FIVE, "open_pr", "wait_ci", "wait_review", "address_code", "wait_ci"]),
    ],
)
def test_the_built_in_pipelines(name: str, types: list[str]) -> None:
    pipeline = load_pipeline(find_pipeline(name, None, cwd=Path("/")), providers=PROVIDERS)
    assert [stage.type for _, stage in walk(pipeline.stages)] == types
    assert pipeline.description
    assert pipeline.name == name


@pytest.mark.parametrize(("name", "mode"), [("local", {"batch", "live"}), ("batch", {"batch"})])
def test_the_modes_of_local_and_batch(name: str, mode: set[str]) -> None:
    frozen = freeze(load_pipeline(find_pipeline(name, None, cwd=Path("/"))), repo=None, settings=Settings())
    assert {stage.mode for stage in agents(frozen).values()} == mode


# ── freezing ──────────────────────────────────────────────────────────────────────────────────────────────────


def agents(frozen: FrozenPipeline) -> dict[str, AgentStage]:
    return {path: stage for path, stage in walk(frozen.stages) if isinstance(stage, AgentStage)}


@pytest.fixture
def frozen(load: Load, project: Path) -> Callable[..., FrozenPipeline]:
    def frozen(text: str, *, settings: Settings = Settings(), **kwargs: Any) -> FrozenPipeline:  # noqa: B008 # immutable
        return freeze(load(text), repo=project, settings=settings, **kwargs)

    return frozen


Freeze = Callable[..., FrozenPipeline]
ONE = "stages: [{type: plan, client: copilot:stage, mode: live}, plan]"


@pytest.mark.parametrize(
    ("head", "cli", "clients"),
    [
        ("", None, ["copilot:stage", "claude:settings"]),
        ("client: claude:pipeline\n", None, ["copilot:stage", "claude:pipeline"]),
        ("client: claude:pipeline\n", "anthropic:cli", ["anthropic:cli", "anthropic:cli"]),
    ],
)
def test_a_client_is_named_by_the_command_line_the_stage_the_pipeline_or_the_settings(
    frozen: Freeze, head: str, cli: str | None, clients: list[str]
) -> None:
    made = agents(frozen(head + ONE, settings=Settings(client="claude:settings"), cli_client=cli))
    assert [str(stage.settled_client) for stage in made.values()] == clients


@pytest.mark.parametrize(
    ("head", "cli", "modes"),
    [
        ("", None, [("live", True), ("batch", False)]),
        ("mode: batch\n", None, [("live", True), ("batch", True)]),
        ("mode: live\n", None, [("live", True), ("live", True)]),
        ("mode: live\n", "batch", [("batch", True), ("batch", True)]),
    ],
)
def test_a_mode_is_named_by_the_command_line_the_stage_the_pipeline_or_the_type(
    frozen: Freeze, head: str, cli: str | None, modes: list[tuple[str, bool]]
) -> None:
    made = agents(frozen(head + ONE, cli_mode=cli))
    assert [(stage.mode, stage.mode_asked) for stage in made.values()] == modes


def test_the_default_mode_is_the_types_own(frozen: Freeze) -> None:
    text = (
        "stages: [plan, implement, verify, review_code, address_code, handoff, wait_ci,"
        " {type: agent, name: a, prompt: .gremlins/prompts/summary.md}]"
    )
    batched = {path for path, stage in agents(frozen(text)).items() if stage.settled_mode == "batch"}
    assert batched == {"plan", "review_code", "handoff"}


@pytest.mark.parametrize("cli", ["clade:x", "claude"])
def test_a_wrong_client_of_the_command_line_is_refused(frozen: Freeze, cli: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown provider `clade`|PROVIDER:MODEL"):
        frozen(ONE, cli_client=cli, providers=PROVIDERS)


def test_a_wrong_client_of_the_settings_is_refused_only_where_it_is_used(frozen: Freeze) -> None:
    wrong = Settings(client="clade:x")
    with pytest.raises(ConfigError, match="unknown provider `clade`"):
        frozen("stages: [plan]", settings=wrong, providers=PROVIDERS)
    frozen("client: claude:x\nstages: [plan]", settings=wrong, providers=PROVIDERS)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("stages: [plan, implement]", "commits"),
        ("stages: [address_code]", "commits"),
        ("stages: [plan, review_code]", "none"),
        ("stages: [plan, verify]", "none"),
        ("stages: [{type: loop, body: [handoff, implement]}]", "commits"),
        ("stages: [{type: parallel, branches: {a: [plan], b: [implement]}}]", "commits"),
        ("stages: [{type: parallel, branches: {a: [plan]}}]", "none"),
        ("evidence: none\nstages: [implement]", "none"),
        ("evidence: commits\nstages: [plan]", "commits"),
    ],
)
def test_commits_are_owed_where_a_stage_writes_code(frozen: Freeze, text: str, evidence: str) -> None:
    assert frozen(text).evidence == evidence


def test_stages_that_may_commit_say_so() -> None:
    assert Verify().changes_code
    assert LoopStage(until="true", body=(Verify(),)).changes_code
    assert not Parallel(branches={"a": (PromptStage(name="a", prompt="x"),)}).changes_code


def test_verify_without_commands_leaves_them_to_the_settings_of_its_run(frozen: Freeze) -> None:
    made = agents(
        frozen("stages: [verify, {type: verify, cmds: [own]}]", settings=Settings(verify=("a", "b"))),
    )
    assert [stage.cmds for stage in made.values() if isinstance(stage, Verify)] == [(), ("own",)]


def test_a_prompts_text_is_frozen(frozen: Freeze, project: Path) -> None:
    made = frozen("stages: [{type: plan, prompt: .gremlins/prompts/summary.md}]")
    (project / ".gremlins" / "prompts" / "summary.md").write_text("Other.")
    assert agents(made)["plan"].prompt_text == "Sum it up.\n"


def test_a_project_can_replace_a_built_in_prompt(frozen: Freeze, project: Path) -> None:
    (project / ".gremlins" / "prompts" / "review_code.md").write_text("Ours.")
    made = agents(frozen("stages: [review_code, implement]"))
    assert made["review_code"].prompt_text == "Ours."
    assert made["implement"].prompt_text != "Ours."


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("missing.md", "no prompt file `missing.md`"),
        (".gremlins", "no prompt file `.gremlins`"),
        ("../outside.md", "lies outside the repository"),
        ("/etc/passwd", "lies outside the repository"),
        ("link.md", "lies outside the repository"),
        (".git/config", "lies outside the repository"),
        (".gremlins/empty.md", "is empty"),
        (".gremlins/binary.md", "cannot be read"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_named_with_the_line(
    frozen: Freeze, project: Path, prompt: str, says: str
) -> None:
    (project.parent / "outside.md").write_text("secret")
    (project / "link.md").symlink_to(project.parent / "outside.md")
    (project / ".gremlins" / "empty.md").write_text(" \n")
    (project / ".gremlins" / "binary.md").write_bytes(b"\xff")
    (project / ".git").mkdir()
    (project / ".git" / "config").write_text("x")
    with pytest.raises(ConfigError) as caught:
        frozen(NESTED.replace("missing.md", prompt))
    assert caught.value.message.startswith(f"{mine(project)}:15: ")
    assert says in caught.value.message


def test_a_frozen_pipeline_survives_json(frozen: Freeze) -> None:
    made = frozen(EXAMPLE + NESTED.removeprefix("stages:\n").replace("missing.md", ".gremlins/prompts/summary.md"))
    assert FrozenPipeline.model_validate_json(made.model_dump_json(by_alias=True)) == made


def test_a_frozen_copy_of_an_older_or_newer_version_is_read() -> None:
    stage = {"type": "plan", "client": "claude:x", "later": 1}
    made = FrozenPipeline.model_validate(
        {"schema": 7, "name": "a", "file": "f", "evidence": "none", "stages": [stage], "new": {}}
    )
    assert made.schema_ == 7
    assert agents(made)[""].settled_client == ClientSpec("claude", "x")


@pytest.mark.parametrize("path", ["loop/plan", "loop[3]/plan"])
def test_a_stage_is_found_by_its_path_in_any_round(frozen: Freeze, path: str) -> None:
    made = frozen("stages: [{type: loop, body: [handoff, plan]}]")
    found = made.stage(path)
    assert found is not None
    assert found.type == "plan"
    assert made.stage("loop/nothing") is None


def test_reading_a_frozen_pipeline_loads_no_yaml() -> None:
    code = "import sys, gremlins.pipeline.file; print({'yaml', 'rich', 'anthropic', 'genai_prices'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


# ── the document ──────────────────────────────────────────────────────────────────────────────────────────────

DOCUMENT = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
EXAMPLES = [block.split("```")[0] for block in DOCUMENT.split("```yaml\n")[1:]]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_documents_examples_can_be_launched(frozen: Freeze, project: Path, example: str) -> None:
    (project / ".gremlins" / "prompts" / "review.md").write_text("Review it.")
    assert frozen(example, providers=PROVIDERS).stages


def test_the_document_names_every_stage_type_and_key() -> None:
    for kind, model in STAGE_TYPES.items():
        assert f"| `{kind}` |" in DOCUMENT
        for key in model.model_fields.keys() - model.frozen_only:
            assert f"`{key}`" in DOCUMENT, f"{kind}.{key}"
