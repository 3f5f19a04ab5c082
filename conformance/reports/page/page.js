// Theme, keys, the filters in the address, and the start of it all.
const root = document.documentElement;
const THEMES = ["auto", "light", "dark"];
const stored = { // a page from a file may have no storage
  get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("theme", value); } catch { /* not kept */ } },
};

function setTheme(theme) {
  root.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  setTheme(theme);
  stored.set(theme);
}

// The filters live in the address, so that a view can be linked to.
function remember() {
  const query = new URLSearchParams();
  if (filters.case) query.set("case", filters.case);
  if (filters.search) query.set("search", filters.search);
  if (filters.outcomes.length) query.set("outcome", filters.outcomes.map((i) => OUTCOMES[i]).join(" "));
  for (const [name] of FIELDS) if (filters[name]) query.set(name, filters[name]);
  try {
    const text = String(query);
    history.replaceState(null, "", text ? `#?${text}` : location.pathname + location.search);
  } catch { /* a page without an address of its own */ }
}

// The view that the address asks for: filters, one case, or #SEL-004, one requirement.
function recalled() {
  if (!location.hash.startsWith("#?")) return recalledRequirement();
  const query = new URLSearchParams(location.hash.slice(2));
  const found = BLANK();
  found.search = query.get("search") || "";
  found.case = query.get("case") || "";
  found.outcomes = (query.get("outcome") || "").split(" ").map((name) => OUTCOMES.indexOf(name))
    .filter((number) => number >= 0);
  for (const [name] of FIELDS) {
    const value = query.get(name) || "";
    found[name] = optionsOf(name).includes(value) ? value : "";
  }
  return found;
}

function recalledRequirement() {
  let id = "";
  try { id = decodeURIComponent(location.hash.slice(1)); } catch { return null; }
  if (!id || byId(id)) return null;
  return optionsOf("requirement").includes(id) ? { ...BLANK(), requirement: id }
    : /^[A-Z]{2,5}-\d+$/.test(id) ? { ...BLANK(), search: id } : null;
}

// Shows a view; what a link names is opened, in sight, and has the focus.
function show(view) {
  const linked = view.case || !location.hash.startsWith("#?");
  apply(view);
  if (!linked) return;
  if (view.case) openFirstCase();
  byId("cases").scrollIntoView({ block: "start" });
  const first = byId("list").querySelector(view.case ? "details.case > summary" : "summary");
  (first || byId("cases")).focus({ preventScroll: true });
}

function openFirstCase() {
  const first = byId("list").querySelector("details.case");
  if (first) first.open = true;
}

// An address without a view is that of the page as it opens; a section's leaves the view as it is.
function onHashChange() {
  const view = recalled();
  if (view) show(view);
  else if (location.hash.length < 2) apply(usualView());
}

function usualView() {
  const bad = COLUMNS.outcome.some((number) => number < 2);
  return { ...BLANK(), outcomes: bad ? [0, 1] : [] };
}

function stepCase(direction) {
  const all = [...byId("list").querySelectorAll("summary")].filter((each) => each.offsetParent);
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.max(0, Math.min(all.length - 1, at + direction));
  all[next].focus();
  all[next].scrollIntoView({ block: "nearest" });
}

function copyOpenCase() {
  const item = document.activeElement.closest("details.case");
  const button = item && item.querySelector("button.copy");
  if (button) button.click();
}

function toggleOutcome(number) {
  const has = filters.outcomes.includes(number);
  apply({ outcomes: has ? filters.outcomes.filter((each) => each !== number)
    : [...filters.outcomes, number] });
  say(`${OUTCOMES[number]} ${has ? "hidden" : "shown"}. ${byId("count").textContent}`);
}

const KEYS = {
  "/": () => byId("search").focus(),
  j: () => stepCase(1),
  k: () => stepCase(-1),
  c: copyOpenCase,
  x: clearFilters,
  t: nextTheme,
  "?": () => byId("help").showModal(),
  1: () => toggleOutcome(0),
  2: () => toggleOutcome(1),
  3: () => toggleOutcome(2),
  4: () => toggleOutcome(3),
  5: () => toggleOutcome(4),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const field = event.target.closest("input:not([type=checkbox]):not([type=radio]), select, textarea");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
}

function drawShares() {
  for (const bar of document.querySelectorAll(".share")) {
    const outcomes = DATA.verdicts[bar.dataset.subject].outcomes;
    for (const name of OUTCOMES) {
      if (!outcomes[name]) continue;
      const part = make("span", { class: `bg-${name}` });
      part.style.flexGrow = outcomes[name];
      bar.append(part);
    }
  }
}

// Paper has no buttons: what is printed is the matrix in full and the failures as they are listed.
function beforePrint() {
  heatState.attention = false;
  syncHeatControls();
  drawHeat();
}

setTheme(THEMES.includes(stored.get()) ? stored.get() : "auto");
byId("theme").addEventListener("click", nextTheme);
byId("help-open").addEventListener("click", () => byId("help").showModal());
document.addEventListener("keydown", onKey);
window.addEventListener("beforeprint", beforePrint);
drawShares();
buildFilters();
startHeat();
startParity();
startDownloads();
const view = recalled();
const section = !view && location.hash.length > 1 && byId(location.hash.slice(1));
if (view) show(view);
else apply(usualView(), { keep: Boolean(section) });
if (section) section.scrollIntoView();
window.addEventListener("hashchange", onHashChange);
root.dataset.ready = "yes";
