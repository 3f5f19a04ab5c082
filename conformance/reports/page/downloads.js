// The cases that are shown, as files: CSV, JSON and JUnit. Nothing leaves this page.
const CSV_COLUMNS = ["outcome", "requirement", "name", "cells", "subject", "suite", "backend", "target",
  "platform", "edition", "simulated", "seed", "seconds", ...MEASURES, "message", "reproduce", "source",
  "waiver", "file", "job"];

function recordOf(index) {
  const text = (name) => textOf(name, index);
  const numbers = measured(index) || [];
  return {
    outcome: OUTCOMES[COLUMNS.outcome[index]],
    ...Object.fromEntries(["requirement", "name", "subject", "suite", "backend", "target", "platform",
      "edition", "message", "detail", "reproduce", "source", "waiver", "file", "job"]
      .map((name) => [name, text(name)])),
    cells: cellsOf(index),
    simulated: Boolean(COLUMNS.simulated[index]),
    seed: COLUMNS.seed[index],
    seconds: COLUMNS.seconds[index],
    ...Object.fromEntries(MEASURES.map((name, i) => [name, numbers[i] ?? null])),
  };
}

// A cell that a spreadsheet would take for a formula gets an apostrophe first.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  const text = Array.isArray(value) ? value.join(" ") : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function asCsv(found) {
  const rows = found.map(recordOf).map((record) => CSV_COLUMNS.map((name) => csvCell(record[name])));
  return [CSV_COLUMNS, ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}

const asJson = (found) => `${JSON.stringify(found.map(recordOf), null, 1)}\n`;

const xml = (text) => String(text).replace(/[&<>"\t\n\r]/g, (c) => `&#${c.charCodeAt(0)};`);
const dotless = (text) => text.replaceAll("==", "-").replace(/[^A-Za-z0-9_+-]/g, "_") || "_";

// One test case a cell, in suites of one class, like the JUnit files of a run.
function asJunit(found) {
  const suites = new Map();
  for (const index of found) {
    const record = recordOf(index);
    for (const cell of record.cells) {
      const name = [cell, record.subject, record.suite].map(dotless).join(".");
      if (!suites.has(name)) suites.set(name, { label: `${cell}.${record.subject}.${record.suite}`, cases: [] });
      suites.get(name).cases.push(junitCase(record, cell, name));
    }
  }
  const parts = [...suites].map(([, { label, cases }]) =>
    `<testsuite name="${xml(label)}" tests="${cases.length}">\n${cases.join("")}</testsuite>\n`);
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${parts.join("")}</testsuites>\n`;
}

function junitCase(record, cell, className) {
  const values = { requirement: record.requirement, source: record.source, subject: record.subject,
    edition: record.edition, cell, target: record.target, platform: record.platform,
    simulated: record.simulated, seed: record.seed, waiver: record.waiver, backend: record.backend };
  const properties = Object.entries(values).filter(([, value]) => value !== "")
    .map(([name, value]) => `<property name="${name}" value="${xml(value)}"/>`).join("");
  const tag = { failed: "failure", errored: "error", waived: "skipped", unsupported: "skipped" }[record.outcome];
  const type = { failed: record.requirement, errored: "infrastructure" }[record.outcome] || record.outcome;
  const body = [record.message, record.reproduce && `reproduce: ${record.reproduce}`, record.detail]
    .filter(Boolean).join("\n\n");
  const ending = tag ? `<${tag} type="${xml(type)}" message="${xml(record.message)}">${xml(body)}</${tag}>` : "";
  return `<testcase classname="${xml(className)}" name="${xml(record.name)}" time="${record.seconds}">` +
    `<properties>${properties}</properties>${ending}</testcase>\n`;
}

const FORMATS = [["CSV", "csv", "text/csv", asCsv], ["JSON", "json", "application/json", asJson],
  ["JUnit", "xml", "application/xml", asJunit]];

function startDownloads() {
  byId("downloads").append(make("span", {}, "Download"), ...FORMATS.map(([label, ending, type, write]) =>
    make("button", { type: "button", id: `download-${ending}`, "aria-label": `Download these cases as ${label}`,
      onclick: () => save(`conformance-cases.${ending}`, type, write(matching())) }, label)));
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  say(`${name} downloaded`);
}
