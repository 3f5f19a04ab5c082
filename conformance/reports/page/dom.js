// Elements are made by hand and texts are text nodes: nothing is ever parsed as markup.
const OUTCOMES = ["failed", "errored", "waived", "unsupported", "passed"];
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== "" && child !== null));
  return element;
}

// Only http and https become links, whatever the data says.
function link(url, text = url) {
  if (!/^https?:\/\/[^\s]+$/i.test(url)) return document.createTextNode(text);
  return make("a", { href: url, rel: "noopener noreferrer" }, text.replace(/^https?:\/\//, ""));
}

const plural = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function debounced(milliseconds, action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

function say(text) {
  byId("said").textContent = "";
  requestAnimationFrame(() => { byId("said").textContent = text; });
}

// A group of radio buttons that looks like one control.
function choice(name, label, options, chosen, onchange) {
  const legend = make("legend", { class: "visually-hidden" }, label);
  const inputs = options.map(([value, text]) =>
    make("label", {},
      make("input", { type: "radio", name, value, checked: value === chosen,
        onchange: () => onchange(value) }),
      make("span", {}, text)));
  return make("fieldset", { class: "segmented" }, legend, inputs);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "visually-hidden", readonly: true });
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (focused) focused.focus();
    return copied;
  }
}
