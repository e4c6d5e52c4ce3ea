// The newest samples of the overview, as they are stored, and the bars of how many arrive. Without this script the page shows
// those of when it was made.

const list = document.getElementById("live");
const rows = document.getElementById("live-rows");
const state = document.getElementById("live-state");
const button = document.getElementById("live-pause");
const drawing = document.getElementById("arrival-bars");
const most = document.getElementById("arrivals-most");
const maxRows = Number(list.dataset.max);
const asOf = Date.parse(list.dataset.asOf);
const clockOffset = asOf - Date.now(); // bars are those of the server's time
const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fractions = new Intl.NumberFormat("en", { maximumSignificantDigits: 7 });
const numbers = { format: (value) => (Number.isInteger(value) ? integers : fractions).format(value) }; // integers are exact

let source = null;
let paused = false;
let waiting = [];
let arrived = 0;

function cell(text, name, link) {
  const made = document.createElement("td");
  const isolated = document.createElement("bdi");
  isolated.textContent = text;
  if (name) made.className = name;
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = link;
    anchor.append(isolated);
    made.append(anchor);
  } else made.append(isolated);
  return made;
}

function row(sample) {
  const made = document.createElement("tr");
  made.append(
    cell(sample.timestamp.slice(0, 19).replace("T", " ")),
    cell(sample.meter, "", `/usage?meter=${encodeURIComponent(sample.meter)}`),
    cell(numbers.format(sample.volume).replaceAll(",", "\u202f").replace("-", "\u2212"), "n"),
    cell(sample.unit),
    cell(sample.resource_id, "", `/resource?id=${encodeURIComponent(sample.resource_id)}`),
    cell(sample.project_id || "\u2013"),
  );
  return made;
}

// --- bars: each has the number of samples of its time in data-samples, empty where it is unknown ---------------------

function count(time) {
  const bars = [...drawing.children].filter((each) => each.localName === "rect");
  const seconds = Number(drawing.dataset.seconds);
  const moved = Math.floor((time - Number(drawing.dataset.start)) / seconds) - (bars.length - 1);
  for (let n = 0; n < Math.min(moved, bars.length); n += 1) {
    bars[0].dataset.samples = "0";
    drawing.append(bars[0]);
    bars.push(bars.shift());
  }
  if (moved > 0) drawing.dataset.start = Number(drawing.dataset.start) + moved * seconds;
  const last = bars[bars.length - 1];
  last.dataset.samples = Number(last.dataset.samples) + arrived;
  arrived = 0;
  const highest = Math.max(...bars.map((each) => Number(each.dataset.samples)), 0);
  bars.forEach((each, x) => {
    const height = highest ? (100 * Number(each.dataset.samples)) / highest : 0;
    each.setAttribute("x", x);
    each.setAttribute("y", 100 - height);
    each.setAttribute("height", height);
  });
  most.textContent = numbers.format(highest).replaceAll(",", "\u202f");
}

// --- the list: what has arrived is shown once a second, the newest first ----------------------------------------------

function show() {
  if (paused) return;
  if (drawing) count((Date.now() + clockOffset) / 1000);
  if (!waiting.length) return;
  list.hidden = false;
  rows.prepend(...waiting.reverse().map(row));
  waiting = [];
  while (rows.children.length > maxRows) rows.lastElementChild.remove();
}

function received(event) {
  const sample = JSON.parse(event.data);
  const recorded = Date.parse(/(Z|[+-]\d\d:\d\d)$/.test(sample.recorded_at) ? sample.recorded_at : `${sample.recorded_at}Z`);
  if (recorded <= asOf) return; // the stream begins some seconds ago: the page has this one
  waiting.push(sample);
  arrived += 1;
  if (waiting.length > maxRows) waiting.shift();
}

function open() {
  if (source || paused || document.hidden) return;
  source = new EventSource("/v2/live");
  source.onopen = () => { state.textContent = "Live: samples appear as they are stored."; };
  source.onerror = () => {
    state.textContent = source && source.readyState === EventSource.CLOSED ? "The live stream was refused; reload the page for newer samples." : "The live stream was interrupted; it is opened again.";
  };
  source.addEventListener("sample", received);
  source.addEventListener("end", (event) => {
    close();
    state.textContent = `The live stream has ended: ${JSON.parse(event.data).reason}`;
  });
}

function close() {
  if (source) source.close();
  source = null;
}

button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Continue" : "Pause";
  if (paused) {
    close();
    state.textContent = "Paused.";
  } else open();
});
document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
button.hidden = false;
open();
setInterval(show, 1000);
