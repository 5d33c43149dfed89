// Elements, sizes and numbers. Text from models only ever becomes text.

const svgNS = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// h makes an element: attributes, on… handlers, --custom properties and text.
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(svgNS, tag), props, children);
}

function fill(el, props, children) {
  for (const [k, v] of Object.entries(props)) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (k.startsWith("--") || k === "left" || k === "width%") el.style.setProperty(k === "width%" ? "width" : k, v);
    else el.setAttribute(k, v === true ? "" : v);
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return el;
}

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// bytes writes a size in binary units with three digits.
export function bytes(n) {
  if (n === null || n === undefined) return "unknown";
  let u = 0;
  let v = n;
  while (v >= 1024 && u < units.length - 1) {
    v /= 1024;
    u++;
  }
  return `${u === 0 ? v : three(v)} ${units[u]}`;
}

export function three(v) {
  if (v >= 100) return v.toFixed(0);
  return v >= 10 ? v.toFixed(1) : v.toFixed(2);
}

export function rate(v) {
  return v >= 100 ? count(Math.round(v)) : v >= 10 ? v.toFixed(1) : v.toFixed(2);
}

export const count = (n) => n.toLocaleString("en");

export function people(n) {
  for (const [div, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
    if (n >= div) return `${three(n / div)} ${unit}`;
  }
  return String(n);
}

export function seconds(s) {
  if (s >= 1) return `${three(s)} s`;
  return s >= 1e-3 ? `${three(s * 1e3)} ms` : `${three(s * 1e6)} µs`;
}

// --- explanations on hover, focus and touch ---

const said = new WeakMap();
let explained = null; // what tip is shown for
const tip = $("tip");

// explain lets an element say how its number came about: make returns a title,
// lines [amount, name, why] and a remark.
export function explain(el, make) {
  said.set(el, make);
  return el;
}

function owner(target) {
  for (let el = target; el && el !== document; el = el.parentNode) if (said.has(el)) return el;
  return null;
}

export function show(el) {
  const { title, lines = [], remark } = said.get(el)();
  tip.replaceChildren(
    h("b", {}, title),
    ...lines.map(([amount, name, why]) => h("div", { class: "line" }, h("span", {}, amount), h("span", {}, name, why ? h("small", {}, why) : null))),
    ...(remark ? [h("p", {}, remark)] : []),
  );
  tip.hidden = false;
  explained = el;
  place();
}

// place puts the explanation beside what it explains, while that is in sight.
function place() {
  const at = explained.getBoundingClientRect();
  if (!explained.isConnected || at.bottom < 0 || at.top > innerHeight) return hide();
  const box = tip.getBoundingClientRect();
  const x = Math.min(Math.max(8, at.left + at.width / 2 - box.width / 2), innerWidth - box.width - 8);
  const above = at.top - box.height - 10;
  tip.style.setProperty("left", `${x}px`);
  tip.style.setProperty("top", `${above > 8 ? above : Math.min(at.bottom + 10, innerHeight - box.height - 8)}px`);
}

export const hide = () => { tip.hidden = true; };

addEventListener("pointerover", (e) => {
  const el = owner(e.target);
  el ? show(el) : hide();
});
addEventListener("focusin", (e) => {
  if (said.has(e.target) && e.target.matches(":focus-visible")) show(e.target);
});
addEventListener("focusout", hide);
addEventListener("scroll", () => { if (!tip.hidden) place(); }, { passive: true, capture: true });
addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });
