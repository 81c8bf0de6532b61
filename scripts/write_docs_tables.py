#!/usr/bin/env python3
"""Write the pages of docs/ that are made from the code, or check that they are up to date.

    scripts/write_docs_tables.py            writes them
    scripts/write_docs_tables.py --check    status 1 if one of them is stale

docs/configuration.md comes from mpicluster/config.py, docs/protocol.md from messages.py,
docs/states.md from the tables and enumerations of states, and the code map in docs/architecture.md
from the first paragraph of every file.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mpicluster import codec, messages  # noqa: E402
from mpicluster.config import Config  # noqa: E402
from mpicluster.scheduler.lifecycle import CHANGES  # noqa: E402
from mpicluster.scheduler.records import TaskState  # noqa: E402
from mpicluster.worker.records import LocalState  # noqa: E402

PACKAGE = ROOT / "mpicluster"
COLUMNS = 100
NOTE = "Written by `scripts/write_docs_tables.py` from {}.\nChange the code, not this page."
MAP_BEGIN, MAP_END = "<!-- code map: begin -->\n", "<!-- code map: end -->\n"
#: Units of settings whose names do not say them.
UNITS = {
    "allowed_failures": "times", "prefetch_tasks_max": "tasks",
    "slot_queue_max": "tasks", "threads_per_slot": "threads", "fetches_max": "values",
    "memory_target": "share of 1", "memory_pause": "share of 1", "memory_terminate": "share of 1",
    "submit_tasks_max": "tasks", "submit_credits": "messages", "history_length": "changes",
}  # fmt: skip
MESSAGE_KINDS = {"ADMIN": "admin", "TASK": "task", "DATA": "data"}


# --- reading the code ------------------------------------------------------------------------


@cache
def source(name: str) -> str:
    """Return the text of a file of the package."""
    return (PACKAGE / name).read_text()


@cache
def lines_of(name: str) -> list[str]:
    return source(name).splitlines()


@cache
def classes_of(name: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(source(name))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def functions_of(name: str) -> list[ast.FunctionDef]:
    """Return all functions and methods of a file, in their order."""
    tree = ast.parse(source(name))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sorted(found, key=lambda node: node.lineno)


def comment_on(name: str, line: int) -> str:
    """Return the `#:` comment above or behind line `line` (counted from 1), in one line."""
    lines = lines_of(name)
    behind = re.search(r"#: (.*)$", lines[line - 1])
    if behind:
        return behind[1]
    found: list[str] = []
    above = line - 2
    while lines[above].strip().startswith("#:"):
        found.insert(0, lines[above].strip().removeprefix("#:").strip())
        above -= 1
    return " ".join(found)


def sections(name: str, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Yield (line, title) of the comments `# --- title ---` between two lines."""
    for number in range(first, last + 1):
        found = re.match(r"\s*# --- (.*?) -*$", lines_of(name)[number - 1])
        if found:
            yield number, found[1].strip()


@cache
def whole_package(without: str) -> str:
    """Return the text of all files but one, in which uses of a name can be looked for."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return "\n".join(path.read_text() for path in paths if path != PACKAGE / without)


def paragraphs(docstring: str) -> str:
    """Return a docstring as Markdown, wrapped anew."""
    found = []
    for paragraph in docstring.strip().split("\n\n"):
        text = " ".join(textwrap.dedent(paragraph).split())
        found.append(textwrap.fill(text, COLUMNS, break_on_hyphens=False, break_long_words=False))
    return "\n\n".join(found)


def first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n\n")[0].replace("\n", " ").strip()


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    body = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


# --- docs/configuration.md -------------------------------------------------------------------


def unit_of(setting: str, default: object) -> str:
    """Return the unit that the name of a setting says, "count" if it says none.

    >>> unit_of("spin_s", 0.01), unit_of("fetches_max", 8)
    ('s', 'values')
    """
    if isinstance(default, str | bool):
        return ""
    if setting in UNITS:
        return UNITS[setting]
    if setting.endswith("bytes_per_s"):
        return "bytes/s"
    if "bytes" in setting:
        return "bytes"
    if re.search(r"_s(_min|_max)?$", setting):
        return "s"
    return "count"


def default_text(value: object) -> str:
    """Return a default as people read it.

    >>> default_text(1 << 20), default_text(1e9), default_text(5e-05)
    ('1 048 576', '1 000 000 000', '0.00005')
    """
    if isinstance(value, float) and value >= 1000:
        value = int(value)
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}".replace(",", " ")
    if isinstance(value, float) and value < 0.001:
        return f"{value:f}".rstrip("0")
    return f'`"{value}"`' if isinstance(value, str) else str(value)


def configuration_page() -> str:
    """Return docs/configuration.md."""
    name = "config.py"
    node = classes_of(name)["Config"]
    assigned = {
        item.target.id: item.lineno
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    defaults = {field.name: field.default for field in fields(Config)}
    titles = list(sections(name, node.lineno, node.end_lineno or 0))
    rows: dict[str, list[list[str]]] = {title: [] for _, title in titles}
    for setting, line in assigned.items():
        title = next(title for begin, title in reversed(titles) if begin < line)
        reason = comment_on(name, line)
        if not re.search(rf"\b{setting}\b", whole_package(name)):
            reason += " *Has no effect yet.*"
        default = defaults[setting]
        rows[title].append(
            [f"`{setting}`", default_text(default), unit_of(setting, default), reason]
        )
    parts = [CONFIGURATION_HEAD.format(note=NOTE.format("`mpicluster/config.py`"))]
    for title, found in rows.items():
        parts.append(f"## {title[:1].upper()}{title[1:]}\n")
        parts.append(table(["setting", "default", "unit", "meaning"], found))
    return "\n".join(parts)


CONFIGURATION_HEAD = """\
# Configuration

{note}

Every limit, interval and size of a cluster is a field of `mpicluster.Config`. A value comes from
the first of these places, from the strongest to the weakest, that names it:

1. arguments: `mpicluster run --set NAME=VALUE`, `LocalCluster(NAME=VALUE)`, `Client(NAME=VALUE)`
   when it starts a `LocalCluster`, `mpicluster.initialize(NAME=VALUE)`;
2. the environment: `MPICLUSTER_` and the name in capitals, like `MPICLUSTER_PREFETCH_S=0.1`;
3. `./mpicluster.toml`;
4. `~/.config/mpicluster.toml`, or the same file in `$XDG_CONFIG_HOME`;
5. `/etc/mpicluster.toml`;
6. the default below.

In the files a setting is a line at the top level, before any table: `prefetch_s = 0.1`. Tables
such as `[jobqueue]` belong to others, see [jobqueue.md](jobqueue.md). A value of the wrong type, or
a number that no cluster can run with, is an error that says where it was found, and so is an
unknown name in a file or an argument; an unknown variable gives a warning. Every rank reads the
files and the environment of its own host, so keep them equal.

The number of slots, the memory limit and the resources of workers are no settings: they are options
of `mpicluster run` (`--slots`, `--memory-limit`, `--resources`) and arguments of `LocalCluster`. A
memory limit is a size, like `4GB` or a number of bytes; without one, and with 0 or `auto`, the
workers of a host share its memory evenly. Shares like 0.5, which `distributed` takes, are refused.
"""


# --- docs/protocol.md ------------------------------------------------------------------------


def protocol_page() -> str:
    """Return docs/protocol.md."""
    name = "messages.py"
    nodes = classes_of(name)
    codes = {message.__name__: code for code, message in enumerate(messages.MESSAGES)}
    last = max(nodes[found].end_lineno or 0 for found in codes)
    note = NOTE.format("`mpicluster/messages.py`")
    parts = [PROTOCOL_HEAD.format(note=note, types=types_table())]
    starts = [*sections(name, 1, last), (last + 1, "")]
    for (begin, title), (end, _) in pairwise(starts):
        found = [node for key, node in nodes.items() if key in codes and begin < node.lineno < end]
        if found:
            parts.append(f"## {title[:1].upper()}{title[1:]}\n")
            parts += [describe_message(node, codes[node.name]) for node in found]
    parts.append("## The options of tasks\n")
    parts.append(
        "`SubmitTasks.options` is null where all are default, otherwise an array of these:\n"
    )
    parts.append(options_table())
    return "\n".join(parts)


def describe_message(node: ast.ClassDef, code: int) -> str:
    """Return the section on one message."""
    message = getattr(messages, node.name)
    kind = MESSAGE_KINDS[message.message_class.name]
    types = {
        item.target.id: ast.unparse(item.annotation)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    columns = [f"`{field}: {types[field]}`" for field in codec.field_names(message)]
    text = paragraphs(ast.get_docstring(node) or "")
    if not re.search(rf"\b{node.name}\(", whole_package("messages.py")):
        text += "\n\n*Nothing sends it yet.*"
    followed = ", followed by raw buffers" if message.has_buffers else ""
    summary = f"Code {code}, {kind}{followed}. Fields: {', '.join(columns) or 'none'}."
    summary = textwrap.fill(summary.replace(": ", ":\0"), COLUMNS, break_long_words=False)
    return f"### `{node.name}`\n\n{text}\n\n{summary.replace(chr(0), ' ')}\n"


def types_table() -> str:
    rows = []
    for number, line in enumerate(lines_of("ids.py"), 1):
        found = re.match(r"(\w+): TypeAlias = (\w+)", line)
        if found:
            rows.append([f"`{found[1]}`", f"`{found[2]}`", comment_on("ids.py", number)])
    for number, line in enumerate(lines_of("messages.py"), 1):
        found = re.match(r"(\w+): TypeAlias = ", line)
        if found:
            rows.append([f"`{found[1]}`", "array", comment_on("messages.py", number)])
    return table(["type", "on the wire", "meaning"], rows)


def options_table() -> str:
    node = classes_of("task_options.py")["TaskOptions"]
    rows = [
        [f"`{item.target.id}`", f"`{ast.unparse(item.annotation)}`",
         comment_on("task_options.py", item.lineno)]
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]  # fmt: skip
    return table(["field", "type", "meaning"], rows)


PROTOCOL_HEAD = """\
# Protocol

{note}

What the ranks tell each other. Commands are imperative (`ComputeTasks`), reports are past
participles (`TasksFinished`). Many tasks travel in one message as columns: entry *i* of every
column belongs to task *i*.

On the wire a message is a msgpack array of its code and the array of its fields. A bundle is an
array of messages to one rank. The highest class in a bundle is its MPI tag:

- **admin** (tag 1): states, sizes, commands;
- **task** (tag 2): functions and arguments, as pickles that the scheduler never opens;
- **data** (tag 3): values. A message with buffers ends its bundle, and its buffers follow as raw
  MPI messages with tag 4, each in parts of at most 1 GiB.

Messages of one pair of ranks arrive in the order in which they were sent; a message with buffers is
delivered when its last byte has come. All ranks must run the same version of mpicluster: the codes
and the order of fields are no stable interface.

Between a worker and its slots there is another, smaller protocol, on Unix sockets:
`mpicluster/worker/slot_protocol.py`.

## Types

{types}"""


# --- docs/states.md --------------------------------------------------------------------------


def states_page() -> str:
    """Return docs/states.md."""
    return STATES_HEAD.format(
        note=NOTE.format("the tables of states in the code"),
        states=scheduler_states(),
        diagram=scheduler_diagram(),
        causes=scheduler_causes(),
        local=local_states(),
    )


def members(name: str, enumeration: str) -> dict[str, str]:
    """Return the members of an enumeration with their comments."""
    return {
        item.targets[0].id: comment_on(name, item.lineno)
        for item in classes_of(name)[enumeration].body
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
    }


def scheduler_states() -> str:
    comments = members("scheduler/records.py", "TaskState")
    rows = [
        [state.name.lower(), comments[state.name],
         ", ".join(new.name.lower() for new in CHANGES[state]) or "nothing: it is the end"]
        for state in TaskState
    ]  # fmt: skip
    return table(["state", "meaning", "may become"], rows)


def scheduler_diagram() -> str:
    arrows = [
        f"    {old.name.lower()} --> {new.name.lower()}" for old, all_new in CHANGES.items()
        for new in all_new
    ]  # fmt: skip
    ends = [f"    {old.name.lower()} --> [*]" for old, all_new in CHANGES.items() if not all_new]
    return "\n".join(["stateDiagram-v2", "    [*] --> released", *arrows, *ends])


def scheduler_causes() -> str:
    """Return which function makes which change: the calls of `move`."""
    rows = []
    for function in functions_of("scheduler/lifecycle.py"):
        new = [
            call.args[2].id.lower()
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            and call.func.id == "move" and isinstance(call.args[2], ast.Name)
        ]  # fmt: skip
        if new:
            text = first_line(ast.get_docstring(function))
            rows.append([f"`{function.name}`", ", ".join(dict.fromkeys(new)), text])
    return table(["function", "new state", "when"], rows)


def local_states() -> str:
    """Return the worker's states, with the functions that set them."""
    comments = members("worker/records.py", "LocalState")
    setters: dict[str, list[str]] = {state.name: [] for state in LocalState}
    for name in ("worker/records.py", "worker/core.py"):
        for function in functions_of(name):
            for state in states_set_in(function):
                setters[state].append(f"`{function.name}`")
    rows = [
        [state.name.lower(), comments[state.name], ", ".join(dict.fromkeys(setters[state.name]))]
        for state in LocalState
    ]
    return table(["state", "meaning", "set by"], rows)


def states_set_in(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        if any(isinstance(target, ast.Attribute) and target.attr == "state" for target in
               node.targets):  # fmt: skip
            yield from re.findall(r"LocalState\.(\w+)", ast.unparse(node.value))


STATES_HEAD = """\
# States

{note}

## A task at the scheduler

The state of a task changes in one function, `move` in `mpicluster/scheduler/lifecycle.py`, which
checks this table and writes the change into the history that `Client.story(future)` shows. Anything
else is an `InvariantError`.

{states}
```mermaid
{diagram}
```

Which function makes which change (`mpicluster/scheduler/lifecycle.py`):

{causes}
Cancelling is no state: a cancelled task is released, and its clients are told.

## An attempt at a worker

A worker knows the attempts that it was assigned. The scheduler's `processing` is any of `waiting`,
`ready` and `executing` here. States are set in `mpicluster/worker/core.py`.

{local}
An abandoned attempt only occupies its slot; when it ends, its result is dropped. So an order to
give a task up never waits for user code.

## A future at the client

| status | meaning |
| --- | --- |
| `pending` | the value is not there yet |
| `finished` | the value is in some worker's memory, or here |
| `error` | the task raised, or a task that it depends on did, or its value is lost |
| `cancelled` | it was cancelled, or the cluster was closed |

A future that is no longer pending never changes its status again, except to `cancelled`.
"""


# --- the code map in docs/architecture.md ----------------------------------------------------


def code_map() -> str:
    """Return a table per folder: each file and what it answers."""
    parts = []
    for package in ("mpicluster", "jobqueue"):
        folders: dict[Path, list[Path]] = {}
        for path in sorted((ROOT / package).rglob("*.py")):
            folders.setdefault(path.parent, []).append(path)
        for folder, paths in folders.items():
            parts.append(f"### `{folder.relative_to(ROOT)}/`\n")
            rows = []
            for path in paths:
                text = first_line(ast.get_docstring(ast.parse(path.read_text())))
                if not (path.name == "__init__.py" and not text):
                    rows.append([f"`{path.name}`", text])
            parts.append(table(["file", "what it answers"], rows))
    return "\n".join(parts)


def architecture_page() -> str:
    """Return docs/architecture.md with a fresh code map."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    before, rest = page.split(MAP_BEGIN)
    _, after = rest.split(MAP_END)
    return f"{before}{MAP_BEGIN}\n{code_map()}\n{MAP_END}{after}"


PAGES = {
    "configuration.md": configuration_page,
    "protocol.md": protocol_page,
    "states.md": states_page,
    "architecture.md": architecture_page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / "docs" / name, make()
        if not path.is_file() or path.read_text() != text:
            stale.append(f"docs/{name}")
            if not check:
                path.write_text(text)
    if not stale:
        return 0
    if check:
        print(
            f"{', '.join(stale)} do not say what the code says. Run scripts/write_docs_tables.py "
            "and commit the result.",
            file=sys.stderr,
        )
        return 1
    print(f"written: {', '.join(stale)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
