// Error over bound, as one histogram per backend, target or cell.
const BINS = 64;
const MEASURES = ["error_over_bound", "max_error", "bound_at_max", "torch_error"];
const parityState = { by: "backend" };
const measured = (index) => COLUMNS.measures[index];
const ratioOf = (index) => (measured(index) ? measured(index)[0] : null);

function parityGroups() {
  const groups = new Map();
  for (let i = 0; i < SIZE; i++) {
    if (ratioOf(i) === null) continue;
    const keys = parityState.by === "cell" ? cellsOf(i) : [textOf(parityState.by, i) || "(none)"];
    for (const key of keys) {
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(i);
    }
  }
  return [...groups].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

const short = (value) => value === null || value === undefined ? ""
  : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
    ? value.toExponential(2) : String(Number(value.toPrecision(3)));

function quantile(sorted, part) {
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}

// The decades shown: always the bound itself, and zero errors in the first bin.
function decades(groups) {
  const ratios = groups.flatMap(([, members]) => members.map(ratioOf)).filter((r) => r > 0);
  const logs = ratios.map(Math.log10);
  const low = logs.reduce((a, b) => Math.min(a, b), -2);
  const high = logs.reduce((a, b) => Math.max(a, b), 0.3);
  return [Math.max(-8, Math.floor(low)), Math.min(8, Math.ceil(high))];
}

function drawPlot(groups) {
  const [low, high] = decades(groups);
  const left = 210, right = 70, row = 46, top = 26, width = 960;
  const height = top + groups.length * row + 8;
  const x = (log) => left + (width - left - right) * (log - low) / (high - low);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "group",
    "aria-label": `Error over bound, by ${parityState.by}` });
  for (let decade = low; decade <= high; decade++) {
    svg.append(draw("line", { class: decade === 0 ? "bound" : "tick", x1: x(decade), x2: x(decade),
      y1: top - 4, y2: height - 4 }),
    draw("text", { class: decade === 0 ? "axis bound-text" : "axis", x: x(decade), y: top - 10 },
      decade === 0 ? "bound" : Math.abs(decade) < 4 ? String(10 ** decade) : `1e${decade}`));
  }
  groups.forEach(([name, members], i) =>
    svg.append(plotRow(name, members, top + i * row, row, x, [low, high], left, width)));
  return svg;
}

function plotRow(name, members, y, row, x, [low, high], left, width) {
  const bins = Array.from({ length: BINS }, () => []);
  for (const index of members) {
    const ratio = ratioOf(index);
    const at = ratio > 0 ? (Math.log10(ratio) - low) / (high - low) : 0;
    bins[Math.max(0, Math.min(BINS - 1, Math.floor(at * BINS)))].push(index);
  }
  const tallest = Math.max(...bins.map((bin) => bin.length));
  const base = y + row - 6;
  const group = draw("g", {},
    draw("line", { class: "base", x1: left, x2: x(high), y1: base, y2: base }),
    draw("text", { class: "row-name", x: left - 12, y: base - 4 }, name.slice(0, 30)));
  bins.forEach((bin, number) => {
    if (!bin.length) return;
    const from = low + (high - low) * number / BINS, to = low + (high - low) * (number + 1) / BINS;
    const bad = bin.filter((index) => COLUMNS.outcome[index] < 2).length;
    const waived = bin.filter(isWaived).length;
    const full = Math.max(2, (row - 14) * bin.length / tallest);
    const part = (number) => (number ? Math.max(2, full * number / bin.length) : 0);
    const red = part(bad), violet = Math.min(part(waived), full - red);
    const label = `${name}: ${plural(bin.length, "case")} from ${short(10 ** from)} to ` +
      `${short(10 ** to)} of the bound${bad ? `, ${bad} failed` : ""}${waived ? `, ${waived} waived` : ""}`;
    const range = [number === 0 ? 0 : 10 ** from, number === BINS - 1 ? Infinity : 10 ** to];
    const open = () => showCases({ [parityState.by]: name === "(none)" ? "" : name, range });
    group.append(draw("g", { class: "bin", tabindex: -1, role: "button", "aria-label": label,
      onclick: open, onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        open();
      } },
    draw("title", {}, label),
    draw("rect", { class: "hit", x: x(from), y: y + 2, width: x(to) - x(from), height: row - 8 }),
    draw("rect", { class: "good", x: x(from) + 0.5, y: base - full, rx: 1,
      width: x(to) - x(from) - 1, height: Math.max(0, full - red - violet) }),
    draw("rect", { class: "waived", x: x(from) + 0.5, y: base - red - violet, rx: 1,
      width: x(to) - x(from) - 1, height: violet }),
    draw("rect", { class: "bad", x: x(from) + 0.5, y: base - red, rx: 1,
      width: x(to) - x(from) - 1, height: red })));
  });
  group.lastElementChild.setAttribute("tabindex", 0);
  const most = worstOf(members);
  // Red is what failed: an error over its bound that a waiver accepts is not.
  const how = ratioOf(most) <= 1 ? "worst" : isWaived(most) ? "worst accepted" : "worst over";
  group.append(draw("text", { class: how, x: width - 4, y: base - 4 }, short(ratioOf(most))));
  return group;
}

const isWaived = (index) => OUTCOMES[COLUMNS.outcome[index]] === "waived";
const worstOf = (members) => members.reduce((a, b) => (ratioOf(b) > ratioOf(a) ? b : a));

function drawParityTable(groups) {
  const heads = [parityState.by, "cases", "failed", "waived", "median", "99 %", "worst",
    "its error", "its bound", "largest error", "torch's largest", "worst case"];
  const rows = groups.map(([name, members]) => {
    const sorted = members.map(ratioOf).sort((a, b) => a - b);
    const most = worstOf(members);
    const failed = members.filter((index) => COLUMNS.outcome[index] === 0).length;
    const waived = members.filter(isWaived).length;
    const [ratio, largest, bound, torchs] = measured(most);
    // The error that comes nearest to its bound need not be the largest: bounds differ by element.
    const its = bound === null ? null : ratio * bound;
    const values = [members.length.toLocaleString("en"), failed.toLocaleString("en"),
      waived.toLocaleString("en"), ...[quantile(sorted, 0.5), quantile(sorted, 0.99), ratio, its, bound, largest, torchs]
        .map(short)];
    const button = make("button", { type: "button", class: "quiet", onclick: () =>
      showCases({ search: textOf("name", most), outcomes: [] }) }, textOf("name", most));
    return make("tr", {}, make("th", { scope: "row" }, name),
      values.map((value) => make("td", { class: "number" }, value)), make("td", {}, button));
  });
  return make("table", { class: "plain" },
    make("thead", {}, make("tr", {}, heads.map((head, i) =>
      make("th", { scope: "col", class: i > 0 && i < heads.length - 1 ? "number" : "" }, head)))),
    make("tbody", {}, rows));
}

// One bar of a row is in the tab order, at first the worst; arrows move it.
function moveInPlot(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const bar = event.target.closest(".bin");
  if (!step || !bar) return;
  event.preventDefault();
  const bars = [...bar.parentElement.querySelectorAll(".bin")];
  const next = bars[Math.max(0, Math.min(bars.length - 1, bars.indexOf(bar) + step))];
  bar.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
}

function drawParity() {
  const groups = parityGroups();
  const svg = drawPlot(groups);
  svg.addEventListener("keydown", moveInPlot);
  byId("plot").replaceChildren(svg);
  byId("parity-table").replaceChildren(drawParityTable(groups));
}

function startParity() {
  if (!COLUMNS.measures.some((values) => values && values[0] !== null)) return;
  byId("parity").hidden = false;
  byId("to-parity").hidden = false;
  byId("parity-controls").append(choice("parity-by", "Rows of the plot",
    [["backend", "Backend"], ["target", "Target"], ["cell", "Cell"]], parityState.by,
    (value) => { parityState.by = value; drawParity(); }));
  drawParity();
}
