// The matrix: cells across, requirements or backends down.
const FEW = 14; // rows that are all shown, whatever they hold
const heatState = { rows: "requirements", subject: "", attention: true, at: [0, 0] };

function heatCounts(table) {
  const rows = new Map();
  for (const [row, subject, cell, counts] of table) {
    if (heatState.subject && subject !== heatState.subject) continue;
    if (!rows.has(row)) rows.set(row, new Map());
    const found = rows.get(row).get(cell) || [0, 0, 0, 0, 0];
    rows.get(row).set(cell, found.map((count, i) => count + counts[i]));
  }
  return rows;
}

function worst(counts) {
  if (!counts) return "none";
  if (counts[0]) return "failed";
  if (counts[1]) return "errored";
  if (counts[2]) return "waived";
  return counts[4] ? "passed" : counts[3] ? "unsupported" : "none";
}

function mark(kind, counts) {
  if (kind === "failed") return counts[0] > 999 ? `${Math.round(counts[0] / 1000)}k` : `${counts[0]}`;
  return { errored: "!", waived: "w", unsupported: "–" }[kind] || "";
}

const inWords = (counts) => counts
  ? OUTCOMES.map((name, i) => counts[i] && `${counts[i].toLocaleString("en")} ${name}`)
    .filter(Boolean).join(", ")
  : "not run";

// "rocm72-aiter-mha" is of stack rocm72; what ran in no cell is of none.
function stackOf(cell) {
  const dash = cell.indexOf("-");
  return dash > 0 && cell !== "no-cell" ? cell.slice(0, dash) : "";
}

function stacksOf(cells) {
  const groups = [];
  for (const cell of cells) {
    const stack = stackOf(cell);
    const last = groups[groups.length - 1];
    if (last && last.stack === stack) last.cells.push(cell);
    else groups.push({ stack, cells: [cell] });
  }
  return groups;
}

function heatHead(groups, broken, what) {
  const corner = make("th", { scope: "col", rowspan: 2, class: "corner" },
    make("span", { class: "visually-hidden" }, what));
  const stacks = make("tr", {}, corner, groups.map(({ stack, cells }) =>
    make("th", { scope: "colgroup", colspan: cells.length, class: "stack" }, stack)));
  const flags = make("tr", {}, groups.flatMap(({ cells }) => cells.map((cell, i) =>
    make("th", { scope: "col", class: `cell${i ? "" : " first"}`, title: cell },
      make("span", {}, cell.slice(stackOf(cell) ? stackOf(cell).length + 1 : 0)),
      broken.has(cell) ? make("b", { title: "errors of the record" }, "!") : ""))));
  return make("thead", {}, stacks, flags);
}

function heatRow(name, counts, groups, lost) {
  const about = DATA.requirements.find((each) => each.id === name);
  const head = make("th", { scope: "row", title: about ? about.sentence : "" },
    make("code", {}, name), about && about.title ? make("span", {}, about.title)
      : name === "(several)" ? make("span", {}, "the order of backends, or more than one") : "");
  const tiles = groups.flatMap(({ cells }) => cells.map((cell, i) => {
    const found = counts.get(cell);
    const kind = !found && lost.has(cell) ? "missing" : worst(found);
    const tile = make("span", { class: `tile ${kind}` }, mark(kind, found));
    if (kind === "failed") {
      const judged = found[0] + found[4] + found[2] + found[1];
      tile.style.setProperty("--part", `${Math.round(100 * found[0] / judged)}%`);
    }
    const label = `${name}, ${cell}: ` +
      (kind === "missing" ? "no result, and errors of the record" : inWords(found));
    return make("td", { role: "gridcell", tabindex: -1, "aria-label": label, title: label,
      class: i ? "" : "first", "data-row": name, "data-cell": cell }, tile);
  }));
  return make("tr", { role: "row" }, head, tiles);
}

function drawHeat() {
  const table = heatState.rows === "requirements" ? DATA.byRequirement : DATA.byBackend;
  const rows = heatCounts(table);
  const names = heatState.rows === "requirements"
    ? DATA.requirements.map((each) => each.id).filter((id) => rows.has(id)) : [...rows.keys()].sort((a, b) => a.startsWith("(") - b.startsWith("(") || natural.compare(a, b));
  const broken = new Set(DATA.problems.flatMap((problem) => problem.cells));
  const seen = new Set(table.map((row) => row[2]));
  const lost = new Set([...broken].filter((cell) => !seen.has(cell)));
  const groups = stacksOf(DATA.cells);
  const fine = (name) => [...rows.get(name).values()].every((counts) => !counts[0] && !counts[1]);
  const hidden = heatState.attention && names.length > FEW ? names.filter(fine) : [];
  const shown = names.filter((name) => !hidden.includes(name));
  const what = heatState.rows === "requirements" ? "requirement" : "backend";
  const body = make("tbody", {}, shown.map((name) => heatRow(name, rows.get(name), groups, lost)));
  const grid = make("table", { class: "heat", role: "grid",
    "aria-label": `Cells by ${what}; activate one to see its cases` }, heatHead(groups, broken, what), body);
  const parts = [grid];
  if (hidden.length) {
    parts.push(make("button", { type: "button", class: "quiet", onclick: () => {
      heatState.attention = false;
      syncHeatControls();
      drawHeat();
    } }, `${plural(hidden.length, what)} without failures: show`));
  }
  if (!names.length) parts.splice(0, 1, make("p", { class: "hint" }, "No case to show."));
  byId("heat").replaceChildren(...parts);
  moveInHeat(0, 0);
}

function heatCells() {
  return [...byId("heat").querySelectorAll("tbody tr")]
    .map((row) => [...row.querySelectorAll("td")]);
}

// One cell of the grid is in the tab order; arrows move it.
function moveInHeat(down, right, { focus = false, from = heatState.at } = {}) {
  const grid = heatCells();
  if (!grid.length || !grid[0].length) return;
  const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));
  const row = clamp(from[0] + down, grid.length);
  const column = clamp(from[1] + right, grid[0].length);
  for (const cell of byId("heat").querySelectorAll('td[tabindex="0"]')) cell.tabIndex = -1;
  heatState.at = [row, column];
  grid[row][column].tabIndex = 0;
  if (focus) grid[row][column].focus();
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  Home: [0, -1e6], End: [0, 1e6], PageUp: [-10, 0], PageDown: [10, 0] };

function startHeat() {
  const subjects = DATA.verdicts.map((verdict) => verdict.label);
  const controls = byId("matrix-controls");
  controls.append(choice("heat-rows", "Rows of the matrix",
    [["requirements", "Requirements"], ["backends", "Backends"]], heatState.rows,
    (value) => { heatState.rows = value; heatState.at = [0, 0]; drawHeat(); }));
  if (subjects.length > 1) {
    const select = make("select", { "aria-label": "Subject of the matrix" },
      make("option", { value: "" }, "All subjects"),
      subjects.map((label) => make("option", { value: label }, label)));
    select.addEventListener("change", () => { heatState.subject = select.value; drawHeat(); });
    controls.append(select);
  }
  const failing = DATA.byRequirement.some((row) => row[3][0] || row[3][1]);
  heatState.attention = failing;
  const attention = make("input", { type: "checkbox", id: "attention" });
  attention.addEventListener("change", () => { heatState.attention = attention.checked; drawHeat(); });
  controls.append(make("label", { class: "check" }, attention, "Only rows with failures or errors"));
  syncHeatControls();
  const heat = byId("heat");
  heat.addEventListener("keydown", (event) => {
    const target = event.target.closest('td[role="gridcell"]');
    if (!target || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ARROWS[event.key]) {
      event.preventDefault();
      moveInHeat(...ARROWS[event.key], { focus: true });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      target.click();
    }
  });
  heat.addEventListener("click", (event) => {
    const target = event.target.closest('td[role="gridcell"]');
    if (!target) return;
    const row = [...target.parentElement.parentElement.children].indexOf(target.parentElement);
    moveInHeat(0, 0, { from: [row, [...target.parentElement.querySelectorAll("td")].indexOf(target)] });
    const field = heatState.rows === "requirements" ? "requirement" : "backend";
    showCases({ [field]: target.dataset.row, cell: target.dataset.cell, subject: heatState.subject });
  });
  drawHeat();
}

function syncHeatControls() {
  byId("attention").checked = heatState.attention;
}
