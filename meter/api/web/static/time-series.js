// Draws each figure of a time series with uPlot from the JSON in it. Without this script its table says the same.
const COLOURS = 10;
const HEIGHT = 320;
const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function colourName(series, n) {
  return series.rest ? "muted" : `s${n % COLOURS}`;
}

const WHOLE = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
const LARGE = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 4 });

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size >= 2 ** 53 || (size && size < 1e-4) ? LARGE.format(value) : WHOLE.format(value);
  return text.replaceAll(",", "\u202f").replace("-", "\u2212");
}

// The size and the letter of the multiples in which an axis counts, so that its labels stay short.
const MULTIPLES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

function axisNumbers(values) {
  const largest = Math.max(...values.filter((value) => value !== null).map(Math.abs), 0);
  const [size, letter] = largest >= 1e4 ? MULTIPLES.find(([each]) => largest >= each) : [1, ""];
  return values.map((value) => (value === null ? null : `${number(value / size)}${value && letter ? `\u202f${letter}` : ""}`));
}

function moment(seconds, digits = 16) {
  return new Date(seconds * 1000).toISOString().slice(0, digits).replace("T", " ");
}

function axisTimes(_, splits, _axis, _space, increment) {
  let day = "";
  return splits.map((each) => {
    const text = moment(each, 19);
    const first = text.slice(0, 10) !== day;
    day = text.slice(0, 10);
    if (increment >= 86400) return day;
    const time = text.slice(11, increment < 60 ? 19 : 16);
    return first ? `${time}\n${day}` : time;
  });
}

// Where each visible series begins and ends in the stack. A window without samples is in no stack.
function stack(data, shown) {
  const sums = new Array(data.windows).fill(0);
  return data.series.map((series, n) => {
    const bases = [...sums];
    const tops = series.values.map((value, i) => {
      if (!shown[n] || value === null) return null;
      sums[i] += value;
      return sums[i];
    });
    return { bases, tops };
  });
}

function stackedPaths(data, state) {
  return (plot, index) => {
    const fill = new Path2D();
    const { bases, tops } = state.stack[index - 1];
    tops.forEach((top, i) => {
      if (top === null) return;
      const left = plot.valToPos(data.start + i * data.step, "x", true);
      const right = plot.valToPos(data.start + (i + 1) * data.step, "x", true);
      const [from, to] = [plot.valToPos(bases[i], "y", true), plot.valToPos(top, "y", true)];
      fill.rect(left, to, right - left > 6 ? right - left - 1 : right - left, from - to);
    });
    return { stroke: null, fill, clip: null, band: null, gaps: null, flags: 0 };
  };
}

// A value holds for its whole window; lines join neighbouring windows and break at gaps.
function stepPaths(data) {
  return (plot, index) => {
    const stroke = new Path2D();
    let joined = false;
    plot.data[index].forEach((value, i) => {
      if (value === null) {
        joined = false;
        return;
      }
      const y = plot.valToPos(value, "y", true);
      const left = plot.valToPos(data.start + i * data.step, "x", true);
      if (joined) stroke.lineTo(left, y);
      else stroke.moveTo(left, y);
      stroke.lineTo(plot.valToPos(data.start + (i + 1) * data.step, "x", true), y);
      joined = true;
    });
    return { stroke, fill: null, clip: null, band: null, gaps: null, flags: 0 };
  };
}

function legend(figure, data, toggle) {
  const list = document.createElement("ul");
  list.className = "legend";
  const outputs = data.series.map((series, n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.setAttribute("aria-pressed", "true");
    const swatch = document.createElement("span");
    swatch.className = `swatch c-${colourName(series, n)}`;
    const name = document.createElement("bdi");
    name.textContent = series.name;
    const value = document.createElement("span");
    value.className = "value";
    button.append(swatch, name, value);
    button.addEventListener("click", () => button.setAttribute("aria-pressed", String(toggle(n))));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
    return value;
  });
  figure.append(list);
  return outputs;
}

function element(figure, name, className) {
  const made = document.createElement(name);
  made.className = className;
  figure.append(made);
  return made;
}

// The same page for a part of the range: the server chooses the window anew.
function zoom(data, from, to) {
  const floor = data.start + Math.floor((from - data.start) / data.step) * data.step;
  const ceiling = data.start + Math.ceil((to - data.start) / data.step) * data.step;
  const url = new URL(location.href);
  for (const name of ["range", "window", "marker"]) url.searchParams.delete(name);
  url.searchParams.set("start", `${moment(floor, 19).replace(" ", "T")}Z`);
  url.searchParams.set("end", `${moment(ceiling, 19).replace(" ", "T")}Z`);
  location.assign(url);
}

function draw(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  data.windows = Math.max(0, ...data.series.map((series) => series.values.length));
  if (!data.windows) return;
  const end = data.start + data.windows * data.step;
  const details = figure.querySelector("details");
  const frame = element(figure, "div", "frame");
  const outputs = legend(figure, data, toggle);
  const readout = element(figure, "p", "readout note");
  readout.setAttribute("aria-live", "polite");
  const hint = data.zoom
    ? "Point at a window for its values, drag to zoom; with the keyboard: arrows, and Enter to zoom to the window."
    : "Point at a window for its values; with the keyboard: arrows.";
  readout.textContent = hint;
  if (details) figure.append(details);
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", `Chart: ${figure.querySelector("figcaption").textContent}`);

  const shown = data.series.map(() => true);
  const state = { stack: stack(data, shown), window: null, plot: null };
  const times = Array.from({ length: data.windows }, (_, i) => data.start + i * data.step);
  const columns = () => [
    times,
    ...data.series.map((series, n) => (data.stacked ? state.stack[n].tops : series.values.map((value) => (shown[n] ? value : null)))),
  ];

  function toggle(n) {
    shown[n] = !shown[n];
    state.stack = stack(data, shown);
    state.plot.setData(columns());
    return shown[n];
  }

  function show(index) {
    state.window = index;
    data.series.forEach((series, n) => {
      outputs[n].textContent = index === null ? "" : number(series.values[index]);
    });
    if (index === null) {
      readout.textContent = hint;
      return;
    }
    const from = data.start + index * data.step;
    const values = data.series.filter((_, n) => shown[n]).map((series) => series.values[index] ?? null);
    const known = values.filter((value) => value !== null);
    const sum = data.stacked && known.length > 1 ? `: ${number(known.reduce((a, b) => a + b, 0))} ${data.unit} in total` : "";
    readout.textContent = `${moment(from, 19)} to ${moment(from + data.step, 19)} UTC${known.length ? sum : ": no samples"}`;
  }

  function options() {
    const [text, line] = [colour("muted"), colour("line")];
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    return {
      width: Math.max(200, frame.clientWidth),
      height: HEIGHT,
      padding: [null, 40, null, null], // half of a date, which may be at the right end
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      legend: { show: false },
      cursor: {
        y: false,
        points: { show: !data.stacked },
        drag: { x: data.zoom, y: false, setScale: false },
        dataIdx: (plot, _series, _closest, x) => Math.min(data.windows - 1, Math.max(0, Math.floor((x - data.start) / data.step))),
      },
      scales: {
        x: { time: true, range: () => [data.start, end] },
        y: {
          range: (_, low, high) =>
            low === null || high === null
              ? [0, 1]
              : uPlot.rangeNum(data.stacked ? 0 : low, high === low ? high + (Math.abs(high) || 1) * 0.1 : high, {
                  min: { pad: 0.1, soft: 0, mode: 1 },
                  max: { pad: 0.1, soft: 0, mode: 2 },
                }),
        },
      },
      axes: [
        { ...axis, space: 80, values: axisTimes },
        { ...axis, size: 72, values: (_, splits) => axisNumbers(splits), label: data.unit || undefined, labelFont: font, labelSize: data.unit ? 20 : 0 },
      ],
      series: [
        {},
        ...data.series.map((series, n) => ({
          label: series.name,
          stroke: colour(colourName(series, n)),
          fill: data.stacked ? colour(colourName(series, n)) : undefined,
          width: data.stacked ? 0 : 2,
          points: { show: false },
          paths: data.stacked ? stackedPaths(data, state) : stepPaths(data),
        })),
      ],
      hooks: {
        setCursor: [(plot) => show(plot.cursor.left < 0 || plot.cursor.idx === null || plot.cursor.idx === undefined ? null : plot.cursor.idx)],
        setSelect: [
          (plot) => {
            if (plot.select.width < 4) return;
            zoom(data, plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
          },
        ],
      },
    };
  }

  function redraw() {
    if (state.plot) state.plot.destroy();
    state.plot = new uPlot(options(), columns(), frame);
  }

  frame.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const from = state.window ?? (steps[event.key] > 0 ? -1 : data.windows);
      const index = Math.min(data.windows - 1, Math.max(0, from + steps[event.key]));
      state.plot.setCursor({ left: state.plot.valToPos(times[index] + data.step / 2, "x"), top: 10 });
      event.preventDefault();
    } else if (event.key === "Enter" && data.zoom && state.window !== null) {
      zoom(data, times[state.window], times[state.window] + data.step);
    } else if (event.key === "Escape") {
      state.plot.setCursor({ left: -10, top: -10 });
    }
  });
  redraw();
  dark.addEventListener("change", redraw);
  let width = frame.clientWidth;
  new ResizeObserver(() => {
    if (frame.clientWidth === width) return;
    width = frame.clientWidth;
    state.plot.setSize({ width: Math.max(200, width), height: HEIGHT });
  }).observe(frame);
}

for (const figure of document.querySelectorAll('figure[data-chart="time-series"]')) {
  draw(figure);
  figure.dataset.drawn = "";
}
