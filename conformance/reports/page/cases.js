// The cases: filters, groups by requirement, and one case taken apart. Bodies are made when opened.
const TEXTS = DATA.cases.texts;
const NAMES = ["outcome", "cells", "requirement", "backend", "subject", "suite", "name", "target",
  "platform", "edition", "simulated", "seed", "seconds", "message", "detail", "reproduce", "source",
  "waiver", "file", "job", "jobName", "measures"];
const COLUMNS = Object.fromEntries(NAMES.map((name) => [name, DATA.cases.columns[name] || []]));
const SIZE = COLUMNS.outcome.length;
const PAGE = 60;
const FIELDS = [["subject", "Subject"], ["cell", "Cell"], ["requirement", "Requirement"],
  ["backend", "Backend"], ["target", "Target"], ["suite", "Suite"]];
const textOf = (name, index) => TEXTS[COLUMNS[name][index]];
const cellSets = new Map();
const filters = { search: "", outcomes: [], range: null, case: "" };
const natural = new Intl.Collator("en", { numeric: true });

function cellsOf(index) {
  const number = COLUMNS.cells[index];
  if (!cellSets.has(number)) cellSets.set(number, TEXTS[number].split("\n"));
  return cellSets.get(number);
}

// ---- filters

const searched = [];
function searchText(index) {
  searched[index] ??= ["name", "message", "platform", "reproduce", "cells", "detail"]
    .map((name) => textOf(name, index)).join("\n").toLowerCase();
  return searched[index];
}

function matching(ignored = "") {
  const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = FIELDS.filter(([name]) => filters[name] && name !== ignored && name !== "cell")
    .map(([name]) => [COLUMNS[name], TEXTS.indexOf(filters[name])]);
  const outcomes = ignored === "outcomes" ? [] : filters.outcomes;
  const one = filters.case ? TEXTS.indexOf(filters.case) : null;
  const found = [];
  for (let i = 0; i < SIZE; i++) {
    if (one !== null && COLUMNS.name[i] !== one) continue;
    if (outcomes.length && !outcomes.includes(COLUMNS.outcome[i])) continue;
    if (wanted.some(([column, number]) => column[i] !== number)) continue;
    if (filters.cell && !cellsOf(i).includes(filters.cell)) continue;
    if (filters.range) {
      const ratio = ratioOf(i);
      if (ratio === null || ratio < filters.range[0] || ratio >= filters.range[1]) continue;
    }
    if (words.length && !words.every((word) => searchText(i).includes(word))) continue;
    found.push(i);
  }
  return found;
}

function buildFilters() {
  const search = make("input", { type: "search", id: "search", placeholder: "Search names, messages, requests",
    "aria-label": "Search", autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/" });
  search.addEventListener("input", debounced(120, () => apply({ search: search.value })));
  const chips = make("fieldset", { class: "chips" }, make("legend", { class: "visually-hidden" }, "Outcomes"),
    OUTCOMES.map((name, i) => make("label", { class: `chip o-${name}` },
      make("input", { type: "checkbox", value: i, id: `outcome-${name}`, onchange: (event) =>
        apply({ outcomes: event.target.checked ? [...filters.outcomes, i]
          : filters.outcomes.filter((other) => other !== i) }) }),
      make("span", {}, name, " ", make("b", { id: `count-${name}` }, "0")))));
  const selects = FIELDS.map(([name, label]) => {
    const select = make("select", { id: `filter-${name}` }, make("option", { value: "" }, "any"),
      optionsOf(name).map((value) => make("option", { value }, value)));
    select.addEventListener("change", () => apply({ [name]: select.value }));
    return make("label", { class: "field" }, make("span", {}, label), select);
  });
  const clear = make("button", { type: "button", id: "clear", onclick: clearFilters }, "Clear");
  const range = make("button", { type: "button", id: "range", hidden: true,
    onclick: () => apply({ range: null }) }, "");
  const one = make("button", { type: "button", id: "one-case", hidden: true,
    onclick: () => apply({ case: "" }) }, "");
  byId("filters").append(make("div", { class: "line" }, search, chips, range, one, clear),
    make("div", { class: "line fields" }, selects));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

function optionsOf(name) {
  const values = name === "cell" ? DATA.cells : [...new Set(COLUMNS[name])].map((n) => TEXTS[n]);
  return [...values].filter(Boolean).sort(natural.compare);
}

// Takes over changes of the filters; ``keep`` leaves the address as it is.
function apply(changes, { keep = false } = {}) {
  Object.assign(filters, changes);
  byId("search").value = filters.search;
  OUTCOMES.forEach((name, i) => { byId(`outcome-${name}`).checked = filters.outcomes.includes(i); });
  for (const [name] of FIELDS) byId(`filter-${name}`).value = filters[name] || "";
  const range = byId("range");
  range.hidden = !filters.range;
  range.textContent = filters.range
    ? `error/bound ${short(filters.range[0])} to ${Number.isFinite(filters.range[1]) ? short(filters.range[1]) : "∞"} ×` : "";
  const counts = [0, 0, 0, 0, 0];
  for (const index of matching("outcomes")) counts[COLUMNS.outcome[index]]++;
  OUTCOMES.forEach((name, i) => { byId(`count-${name}`).textContent = counts[i].toLocaleString("en"); });
  byId("one-case").hidden = !filters.case;
  byId("one-case").textContent = filters.case ? `Only ${filters.case} ×` : "";
  drawList(matching());
  if (!keep) remember();
}

const BLANK = () => ({ search: "", outcomes: [], range: null, case: "",
  ...Object.fromEntries(FIELDS.map(([name]) => [name, ""])) });

function clearFilters() {
  apply(BLANK());
}

// From the matrix and the plots: these filters and no others, and the list in view.
function showCases(changes) {
  apply({ ...BLANK(), ...changes });
  byId("cases").scrollIntoView({ block: "start" });
  const first = byId("list").querySelector("summary");
  (first || byId("cases")).focus({ preventScroll: true });
}

// ---- the list

function drawList(found) {
  const groups = new Map();
  for (const index of found) {
    const key = COLUMNS.requirement[index];
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(index);
  }
  const worstIn = (members) => members.reduce((least, i) => Math.min(least, COLUMNS.outcome[i]), 9);
  const ordered = [...groups].map(([key, members]) => [TEXTS[key], members, worstIn(members)])
    .sort((a, b) => a[2] - b[2] || natural.compare(a[0], b[0]));
  const single = ordered.length === 1;
  byId("list").replaceChildren(...ordered.map(([id, members]) => groupOf(id, members, single)));
  byId("count").textContent = found.length
    ? `${plural(found.length, "case")} of ${SIZE.toLocaleString("en")}, in ${plural(ordered.length, "requirement")}`
    : SIZE ? "No case fits these filters." : "There is no case in this report.";
}

function groupOf(id, members, open) {
  const about = DATA.requirements.find((each) => each.id === id);
  const counts = [0, 0, 0, 0, 0];
  for (const index of members) counts[COLUMNS.outcome[index]]++;
  const title = make("span", { class: "title" }, about ? about.title : "");
  const tags = make("span", { class: "tags" },
    about && about.contested.length ? make("span", { class: "tag" }, "contested") : "",
    OUTCOMES.map((name, i) => counts[i]
      ? make("span", { class: `o-${name}` }, make("b", {}, counts[i].toLocaleString("en")), ` ${name}`) : ""));
  const group = make("details", { class: "group" },
    make("summary", {}, make("code", { class: "id" }, id), title, tags));
  const build = () => {
    if (!group.open || group.dataset.built) return;
    group.dataset.built = "yes";
    group.append(aboutOf(about), ...pageOf(members, 0));
  };
  group.addEventListener("toggle", build);
  if (open) {
    group.open = true;
    build();
  }
  return group;
}

function aboutOf(about) {
  if (!about || !about.sentence) return "";
  const note = (label, urls) => (urls.length && urls[0]
    ? make("span", { class: "note" }, `${label} `, urls.flatMap((url, i) => [i ? ", " : "", link(url)])) : "");
  const here = make("a", { href: `#${encodeURIComponent(about.id)}` }, "Link to this requirement");
  return make("p", { class: "about" }, about.sentence, " ", make("span", { class: "note" }, here), note("Source", [about.source]), " ",
    note("Introduced by", [about.introducedBy]), " ", note("Contested in", about.contested));
}

function pageOf(members, start) {
  const parts = members.slice(start, start + PAGE).map(caseOf);
  const left = members.length - start - PAGE;
  if (left > 0) {
    const more = make("button", { type: "button", class: "more", onclick: () => {
      const next = pageOf(members, start + PAGE);
      more.replaceWith(...next);
      next[0].querySelector("summary").focus();
    } }, `Show ${Math.min(PAGE, left)} more of ${left.toLocaleString("en")}`);
    parts.push(more);
  }
  return parts;
}

function caseOf(index) {
  const outcome = OUTCOMES[COLUMNS.outcome[index]];
  const cells = cellsOf(index);
  const where = cells.length === 1 ? cells[0] : plural(cells.length, "cell");
  const item = make("details", { class: `case o-${outcome}` },
    make("summary", {}, make("span", { class: `mark o-${outcome}` }, outcome),
      make("bdi", { class: "name" }, textOf("name", index)),
      make("span", { class: "meta" }, where)));
  item.addEventListener("toggle", () => {
    if (!item.open || item.dataset.built) return;
    item.dataset.built = "yes";
    item.append(bodyOf(index));
  });
  return item;
}

// "expected X, got Y; candidates: A (why), B; request: k=v" in its parts.
function partsOf(message) {
  const request = message.lastIndexOf("; request: ");
  const head = request < 0 ? message : message.slice(0, request);
  const at = head.indexOf("; candidates: ");
  const rest = at < 0 ? "" : head.slice(at + "; candidates: ".length);
  const stop = at < 0 ? -1 : splitTop(rest, "; ")[0].length;
  const [, asked, counted] = request < 0 ? ["", "", ""]
    : /^(.*?)(?: \(([^()]*)\))?$/s.exec(message.slice(request + "; request: ".length));
  return {
    sentence: at < 0 ? head : head.slice(0, at),
    candidates: at < 0 ? [] : splitTop(rest.slice(0, stop), ", "),
    after: [at < 0 ? "" : rest.slice(stop).replace(/^; /, ""), counted].filter(Boolean).join("; "),
    request: asked,
  };
}

// Splits at a separator that is not inside of parentheses.
function splitTop(text, separator) {
  const parts = [];
  let depth = 0, start = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "(") depth++;
    else if (text[i] === ")") depth--;
    else if (depth === 0 && text.startsWith(separator, i)) {
      parts.push(text.slice(start, i));
      start = i + separator.length;
    }
  }
  return [...parts, text.slice(start)];
}

function candidateOf(text) {
  const open = text.indexOf(" (");
  if (open < 0) return make("li", { class: "valid" }, make("code", {}, text), " valid");
  return make("li", {}, make("code", {}, text.slice(0, open)), " ", text.slice(open + 2).replace(/\)$/, ""));
}

// An address that opens this case alone, in this report and in one of a later build.
function linkTo(index) {
  const query = new URLSearchParams({ case: textOf("name", index) });
  for (const name of ["subject", "suite"]) query.set(name, textOf(name, index));
  query.set("cell", cellsOf(index)[0]);
  return `#?${query}`;
}

function bodyOf(index) {
  const text = (name) => textOf(name, index);
  const { sentence, candidates, after, request } = partsOf(text("message"));
  const rows = [];
  const row = (label, ...content) => {
    if (content.some((each) => each)) rows.push(make("dt", {}, label), make("dd", {}, ...content));
  };
  row(OUTCOMES[COLUMNS.outcome[index]], make("span", { class: "said" }, sentence || "No message."),
    after ? make("span", { class: "said" }, after) : "");
  if (candidates.length) row("candidates", make("ol", { class: "candidates" }, candidates.map(candidateOf)));
  if (request) row("request", make("span", { class: "said" }, make("code", {}, request)));
  row("platform", text("platform") ? make("code", {}, text("platform")) : "",
    COLUMNS.simulated[index] ? make("span", { class: "tag" }, "simulated") : "");
  row("cells", make("span", { class: "cells" }, cellsOf(index).join("  ")));
  if (text("backend") && !text("backend").startsWith("(")) row("backend", make("code", {}, text("backend")));
  if (measured(index)) row("measures", measuresOf(index));
  if (text("source")) row("source", link(text("source")));
  if (text("waiver")) row("waiver", make("code", {}, text("waiver")));
  if (text("reproduce")) row("reproduce", reproduceOf(text("reproduce")));
  const job = text("job") ? link(text("job"), text("jobName")) : text("jobName");
  row("subject", `${text("subject")}, edition ${text("edition") || "unknown"}, seed ${COLUMNS.seed[index] || "none"}, ${COLUMNS.seconds[index]} s`);
  row("from", make("code", {}, text("file")), " ", job);
  row("link", make("a", { href: linkTo(index) }, "Link to this case"));
  if (text("detail")) row("detail", make("pre", { class: "detail", tabindex: 0 }, text("detail")));
  return make("dl", { class: "body" }, rows);
}

function measuresOf(index) {
  return make("ul", { class: "measures" }, MEASURES.map((name, i) => {
    const value = measured(index)[i];
    return value === null ? "" : make("li", {}, `${name.replaceAll("_", " ")} `, make("b", {}, short(value)));
  }));
}

function reproduceOf(command) {
  const button = make("button", { type: "button", class: "copy", onclick: async () => {
    const copied = await copyText(command);
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    say(copied ? "Reproduce line copied" : "Could not copy");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return make("div", { class: "reproduce" }, make("pre", { tabindex: 0 }, command), button);
}
