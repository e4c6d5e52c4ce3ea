"""``meter-import``: its command line, its state, its speed, and what it makes of points."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python import usage

from meter.bus.batches import BATCH_SAMPLES
from meter.commands.importing.command import report_finished
from meter.commands.importing.gnocchi_csv import GnocchiCsv
from meter.commands.importing.gnocchi_metrics import granularity_of
from meter.commands.importing.gnocchi_metrics import metadata_of
from meter.commands.importing.gnocchi_points import MAX_GRANULARITY_SECONDS
from meter.commands.importing.gnocchi_points import GnocchiMetric
from meter.commands.importing.gnocchi_points import NoAggregation
from meter.commands.importing.gnocchi_points import ResourceRevision
from meter.commands.importing.gnocchi_points import aggregation_for
from meter.commands.importing.gnocchi_points import samples_of
from meter.commands.importing.import_destination import BusDestination
from meter.commands.importing.import_options import Options
from meter.commands.importing.import_rules import ImportRules
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourcePage
from meter.commands.importing.import_source import SourceSample
from meter.commands.importing.import_source import derived_id
from meter.commands.importing.import_state import BadImportState
from meter.commands.importing.import_state import ImportState
from meter.commands.importing.import_state import ImportTotals
from meter.commands.importing.importer import Importer
from meter.commands.importing.meter_types import MeterTypes
from meter.commands.importing.meter_types import UnknownMeter
from meter.interfaces import Unavailable
from meter.message import read_cast
from meter.outgoing import Signer
from meter.settings import Config
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import sample

SELECTION = ImportSelection(None, NOON + timedelta(days=1))
NOW = NOON.timestamp() + 86_400


def parsed(*arguments):
    options = Options()
    options.parseOptions(arguments)
    return options.subOptions


UNTIL = ("--until", "2026-11-25")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give a subcommand"),
        (["ceilometer", "sqlite://"], "give --until"),
        (["ceilometer", "--until", "soon", "sqlite://"], "--until must be a time"),
        (["ceilometer", *UNTIL, "--since", "2026-11-26", "sqlite://"], "--since must be before --until"),
        (["ceilometer", *UNTIL, "--rate", "-1", "sqlite://"], "--rate must not be negative"),
        (["ceilometer", *UNTIL, "--interval", "0", "sqlite://"], "--interval must be more than 0"),
        (["ceilometer", *UNTIL], "give the URL of one database"),
        (["gnocchi", *UNTIL, "--user", "admin"], "--user needs the URL"),
        (["gnocchi", *UNTIL, "--types", "cpu=number"], "--types must have the form"),
        (["gnocchi", *UNTIL, "--granularity", "0"], "--granularity must be more than 0"),
        (["gnocchi-csv", *UNTIL, "--meter", "cpu", "x.csv"], "give --meter and --resource"),
        (["gnocchi-csv", *UNTIL, "--meter", "cpu", "--resource", "r", "--type", "number", "x.csv"], "--type must be"),
    ],
)
def test_wrong_command_line_is_refused_with_what_would_be_right(arguments, error):
    with pytest.raises(usage.UsageError, match=error):
        parsed(*arguments)


def test_url_of_gnocchi_may_end_in_the_version():
    assert parsed("gnocchi", *UNTIL, "http://gnocchi:8041/v1/")["url"] == "http://gnocchi:8041"


def test_state_is_that_of_one_import(tmp_path):
    state = ImportState(tmp_path / "state", {"source": "a", "until": "b"})
    state.read()
    assert state.mark is None
    state.write({"any": ["json"]})

    again = ImportState(tmp_path / "state", {"source": "a", "until": "b"})
    again.read()
    assert again.mark == {"any": ["json"]}
    with pytest.raises(BadImportState, match="differs in since, until"):
        ImportState(tmp_path / "state", {"source": "a", "until": "c", "since": 1}).read()
    for broken in ("", "[]", '{"import": 1', "null"):
        (tmp_path / "state").write_text(broken)
        with pytest.raises(BadImportState, match="is not the state of an import"):
            state.read()


def test_state_of_an_earlier_version_does_not_say_what_was_imported(tmp_path):
    (tmp_path / "state").write_text('{"import": {}, "mark": 7}')
    state = ImportState(tmp_path / "state", {})
    state.read()
    assert (state.mark, state.totals, state.finished) == (7, None, False)
    for wrong in (
        '"totals": 5',
        '"totals": {"meters": 5}',
        '"totals": {"meters": {"cpu": "x"}}',
        '"totals": {"more": 1}',
    ):
        (tmp_path / "state").write_text(f'{{"import": {{}}, "mark": 7, {wrong}}}')
        with pytest.raises(BadImportState, match="is not the state of an import"):
            state.read()


def test_derived_ids_differ_where_the_parts_do_and_stay_for_ever():
    assert derived_id("a", "b") == "703f36af-ae72-5157-9c18-eb485267543c"
    assert len({derived_id("a", "b"), derived_id("ab", ""), derived_id("", "ab"), derived_id("b", "a")}) == 4


# --- the importer --------------------------------------------------------------------------------------------------


class Pages:
    """A source with pages of so many samples each."""

    def __init__(self, *sizes):
        self.sizes = sizes

    async def pages(self, mark):
        for number, size in enumerate(self.sizes):
            samples = [
                SourceSample(f"{number}/{n}", sample(at=n, message_id=derived_id(str(number), str(n))))
                for n in range(size)
            ]
            yield SourcePage(samples, [NotImported("x", "cpu", "it is odd", {})], number, size)


class Taken:
    """A destination that takes everything, at once."""

    verb = "taken"

    def __init__(self):
        self.messages = []

    async def send(self, messages):
        self.messages += messages
        return {}


def importer(source, clock, **options):
    rules = ImportRules(Config(), NOW)
    return Importer(source, rules, clock, lambda: Signer(KEYS, "test", untrusted=True), **options)


@pytest_twisted.ensureDeferred
async def test_totals_of_all_runs_are_kept_and_told_when_nothing_is_left(tmp_path, capsys):
    class Stops(Taken):
        async def send(self, messages):
            if self.messages:
                one.stop()
            return await super().send(messages)

    def run(one, mark):
        running = Deferred.fromCoroutine(one.run(mark))
        clock.pump([0] * 5)
        return running

    clock = Clock()
    one = importer(Pages(2, 1, 4), clock, destination=Stops(), state=ImportState(tmp_path / "state", {}))
    with pytest.raises(Unavailable):
        await run(one, None)
    again = ImportState(tmp_path / "state", {})
    again.read()
    assert (again.totals, again.finished) == (ImportTotals({"cpu": 3}, 2), False)
    await run(importer(Pages(4), clock, destination=Taken(), state=again), again.mark)
    last = ImportState(tmp_path / "state", {})
    last.read()
    assert (last.totals, last.finished) == (ImportTotals({"cpu": 7}, 3), True)

    report_finished(last.totals, {"json": False, "state": "s"})
    report_finished(None, {"json": False, "state": "s"})
    report_finished(last.totals, {"json": True, "state": "s"})
    told, unknown, as_json = capsys.readouterr().out.splitlines()
    assert "nothing new: it had imported 7 samples of 1 meter, and not 3 records; --restart" in told
    assert "nothing new: what it had imported is not in its state; --restart" in unknown
    assert json.loads(as_json)["imported"] == {"samples": 7, "meters": {"cpu": 7}, "not_imported": 3}


def test_rate_is_the_most_that_is_sent_in_a_second():
    clock, to = Clock(), Taken()
    done = Deferred.fromCoroutine(importer(Pages(10, 10, 10), clock, destination=to, rate=5.0).run(None))
    sent = []
    for _ in range(7):
        sent.append(len(to.messages))
        clock.advance(1)
    clock.pump([0] * 5)
    assert sent == [10, 10, 20, 20, 30, 30, 30]
    assert done.called


def test_import_that_is_stopped_ends_after_its_page():
    clock, to = Clock(), Taken()
    one = importer(Pages(10, 10), clock, destination=to)
    one.stop()
    failed = []
    Deferred.fromCoroutine(one.run(None)).addErrback(failed.append)
    clock.advance(1)
    [failure] = failed
    assert (failure.type, len(to.messages)) == (Unavailable, 10)


def test_mark_is_written_after_samples_and_rejected_records(tmp_path):
    events = []

    class Slow(Taken):
        async def send(self, messages):
            events.append(f"sent {len(messages)}")
            return {messages[0].fields["message_id"]: "no"}

    class Lines:
        def write(self, line):
            events.append(json.loads(line)["reason"])

        def flush(self):
            events.append("flushed")

    class Marks:
        totals = ImportTotals()

        def write(self, mark, totals):
            assert totals.samples == 2
            events.append(f"mark {mark}")

    one = importer(Pages(3), Clock(), destination=Slow(), state=Marks(), rejected=Lines())
    Deferred.fromCoroutine(one.run(None))
    assert events == ["sent 3", "it is odd", "no", "flushed", "mark 0"]
    assert (one.counts.samples, one.counts.not_imported) == (2, 2)


@pytest_twisted.ensureDeferred
async def test_batch_that_is_too_large_is_published_in_parts_and_one_sample_alone_refused():
    published = []

    class Broker:
        async def publish(self, publication):
            samples = read_cast(publication.body, KEYS)
            if len(samples) > 3 or any(each.volume == 7 for each in samples):
                raise ValueError("too large")
            published.extend(samples)

    signer = Signer(KEYS, "test")
    messages = [signer.message(sample("cpu" if n % 2 else "memory", n, at=n)) for n in range(30)]
    refused = await BusDestination(Broker()).send(messages)
    assert list(refused.values()) == ["the message bus rejects it: too large"]
    assert {each.volume for each in published} == set(range(30)) - {7}
    assert BATCH_SAMPLES >= 30


# --- Gnocchi -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:05:00", 300), ("1 day, 0:00:00", 86_400), ("7 days, 1:00:01", 608_401), ("0:00:00.500000", 0.5), (60.0, 60)],
)
def test_granularity_is_read_as_gnocchi_writes_it(text, seconds):
    assert granularity_of(text) == seconds


@pytest.mark.parametrize("text", ["five minutes", None, True, "1:00"])
def test_granularity_that_is_none_is_refused(text):
    with pytest.raises(LookupError, match="granularity"):
        granularity_of(text)


def test_best_aggregate_that_is_there_is_taken():
    assert aggregation_for("gauge", ["max", "mean"]) == "mean"
    assert aggregation_for("cumulative", ["mean", "max", "rate:mean"]) == "max"
    with pytest.raises(NoAggregation, match="Gnocchi keeps rate:mean of it, but a gauge"):
        aggregation_for("gauge", ["rate:mean"])


def metric(kind="gauge", aggregation="mean", **changes):
    fields = {
        "record": "metric m",
        "name": "memory",
        "type": kind,
        "unit": "MiB",
        "resource_id": "r",
        "aggregation": aggregation,
        "revisions": (ResourceRevision(datetime.min.replace(tzinfo=UTC), "p", None, {}),),
    }
    return GnocchiMetric(**(fields | changes))


def test_points_of_other_granularities_and_times_are_left_out_and_broken_ones_named():
    at = "2026-11-18T12:00:00+00:00"
    last = "2026-11-19T11:58:00+00:00"  # its period ends after the selected time
    points = [[at, 300.0, 1], [at, 60.0, 2], [last, 300.0, 3], [at], ["never", 300.0, 4], [at, 300.0, None], 5]

    samples, refused = samples_of(metric(), points, 300.0, SELECTION)

    assert [each.sample.volume for each in samples] == [1]
    assert len(refused) == 4


def test_period_of_more_than_a_year_gives_no_interval():
    samples, _ = samples_of(metric(), [["2020-01-01T00:00", 4e7, 1]], 4e7, SELECTION)
    assert "_meter" not in samples[0].sample.resource_metadata


def test_metadata_of_an_instance_are_those_from_which_ceilometer_made_its_attributes():
    revision = {"id": "r", "type": "instance", "host": "hv1", "flavor_id": "1", "flavor_name": None, "metrics": {}}
    assert metadata_of(revision) == {"instance_host": "hv1", "flavor_id": "1", "flavor": {"id": "1"}}
    assert metadata_of({"type": "generic", "host": "x", "project_id": "p"}) == {"host": "x"}


def test_types_are_those_of_the_plugins_and_the_users():
    types = MeterTypes({"acme.load": "gauge", "memory": "delta"})
    assert [types.of(name) for name in ("cpu", "acme.load", "memory", "perf.cpu.cycles")] == [
        "cumulative",
        "gauge",
        "delta",
        "gauge",
    ]
    with pytest.raises(UnknownMeter, match=r"--types acme\.other=gauge"):
        types.of("acme.other")


@pytest_twisted.ensureDeferred
async def test_line_of_csv_with_a_decimal_comma_or_a_wrong_granularity_is_not_imported(tmp_path):
    path = tmp_path / "load.csv"
    lines = [
        "timestamp,granularity,value",
        *(f"2026-11-18T12:0{n}:00+00:00,{rest}" for n, rest in enumerate(["60,1.5", "60,1,5", "-60,2"])),
    ]
    path.write_text("\n".join(lines) + "\n")
    selection = ImportSelection(None, datetime(2026, 11, 25, tzinfo=UTC))
    source = GnocchiCsv(
        path,
        selection,
        name="load",
        type="gauge",
        unit="%",
        resource_id="r",
        project_id=None,
        user_id=None,
        aggregation="mean",
    )
    await source.open()
    [page] = [each async for each in source.pages(None)]
    assert len(page.samples) == 1
    assert [(each.record, each.reason) for each in page.not_imported] == [
        (f"{path} line 3", "the line has more columns than the first line: '5'"),
        (
            f"{path} line 4",
            f"granularity must be more than 0 and at most {MAX_GRANULARITY_SECONDS:g} seconds, not '-60'",
        ),
    ]
