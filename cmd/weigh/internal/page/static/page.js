// The page: controls, what they ask of the program, and what is drawn.

import { $, h, bytes, count, rate, hide } from "./dom.js";
import { state, fresh, toHash, fromHash, hardware, settings, take, same, extras } from "./state.js";
import { ask, models, latest, idle } from "./api.js";
import { drawMemory, drawVerdict } from "./memory.js";
import { drawLadder, drawMap, names } from "./charts.js";
import { drawModel, drawNotes, drawMetadata, drawQuants, drawPresets, drawSpeed } from "./tables.js";

let library = { models: [], notes: [] };
let facts = null; // of the model: weigh inspect
let now = null; // weigh estimate at the state
let placed = null;
let over = "ngl";
const ladders = {}; // by setting, of the last idle moment

// --- controls ---

const cacheTypes = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];
const stops = {
  c: () => {
    const most = facts?.n_ctx_train || 131072;
    const out = [];
    for (let n = 512; n < most; n *= 2) for (const v of n < 2048 ? [n] : [n, n * 1.25, n * 1.5, n * 1.75]) if (v < most) out.push(v);
    return [...out, most];
  },
  ngl: () => range((facts?.n_layer ?? 32) + 1),
  ncmoe: () => range(facts?.n_layer ?? 0),
  np: () => [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64],
  ub: () => [32, 64, 128, 256, 512, 1024, 2048, 4096],
};
const range = (n) => Array.from({ length: n + 1 }, (_, i) => i);
const controls = {
  c: ["Context", (v) => `${count(v)} tokens`],
  ngl: ["Layers on GPUs", (v) => `${v} of ${(facts?.n_layer ?? 0) + 1}`],
  ncmoe: ["Experts on the CPU", (v) => (v ? `of the first ${v} layers` : "none")],
  np: ["Sequences at once", (v) => (v ? `${v}` : "as llama-server: 4 sharing one cache")],
  ub: ["Micro-batch", (v) => `${v} tokens at once`],
};
const widgets = {};

function buildControls() {
  for (const [key, [label]] of Object.entries(controls)) {
    const slider = h("input", { type: "range", id: `s-${key}`, min: 0, step: 1, class: "open" });
    const number = h("input", { type: "number", id: `n-${key}`, min: 0, placeholder: "auto", "aria-label": `${label}, exactly` });
    const remark = h("small", {});
    slider.addEventListener("input", () => set(key, stops[key]()[+slider.value]));
    number.addEventListener("change", () => { if (Number.isInteger(+number.value) && +number.value >= 0) set(key, +number.value); });
    widgets[key] = { slider, number, remark, root: h("div", { class: "slider" }, h("div", { class: "top" }, h("label", { for: `s-${key}` }, label), number), slider, remark) };
    $("sliders").append(widgets[key].root);
  }
  for (const id of ["ctk", "ctv"]) {
    $(id).append(...cacheTypes.map((t) => h("option", {}, t)));
    $(id).addEventListener("change", () => set(id, $(id).value));
  }
  for (const id of ["fa", "kvu", "host"]) $(id).addEventListener("change", () => set(id, $(id).value));
  for (const id of ["nkvo", "swa"]) $(id).addEventListener("change", () => set(id, $(id).checked));
  $("mm").addEventListener("change", () => set("mm", $("mm").checked ? projector() : ""));
  $("host").append(h("option", { value: "" }, "as detected"), ...[8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536].map((n) => h("option", { value: `${n}GiB` }, `${n} GiB`)));
  $("cpu-only").addEventListener("click", () => set("gpus", ["none"]));
  $("plan-here").addEventListener("click", () => change(["-c", String(state.c)]));
  $("detected").addEventListener("click", () => { state.host = ""; set("gpus", []); });
}

function set(key, value) {
  state[key] = value;
  changed();
}

// changed shows the state and asks what it means.
function changed() {
  document.body.dataset.wanted = JSON.stringify([...settings(), ...hardware()]);
  showControls();
  remember();
  follow();
  consider();
}

let written = 0;
function remember() {
  clearTimeout(written);
  written = setTimeout(() => history.replaceState(null, "", toHash()), 120);
}

function showControls() {
  const layers = (facts?.n_layer ?? 0) + 1;
  for (const [key, w] of Object.entries(widgets)) {
    const list = stops[key]();
    let value = state[key];
    if (key === "ngl" && value < 0) value = layers;
    w.slider.max = list.length - 1;
    w.slider.value = list.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(list[best] - value) ? i : best), 0);
    w.slider.setAttribute("aria-valuetext", controls[key][1](value));
    if (document.activeElement !== w.number) w.number.value = key === "np" && !value ? "" : value;
    w.remark.textContent = remarkOf(key, value);
    limit(key, w.slider, list);
  }
  widgets.ncmoe.root.hidden = !facts?.n_expert || onlyHost();
  widgets.ngl.root.hidden = onlyHost();
  $("swa-label").hidden = !facts?.n_swa;
  $("mm-label").hidden = !projector();
  $("mm").checked = state.mm !== "";
  for (const id of ["ctk", "ctv", "fa", "kvu"]) $(id).value = state[id];
  if (![...$("host").options].some((o) => o.value === state.host)) $("host").append(h("option", { value: state.host }, state.host));
  $("host").value = state.host;
  $("nkvo").checked = state.nkvo;
  $("swa").checked = state.swa;
  $("extra").replaceChildren(...extras().map((group, i) => h("span", { class: "chip", title: group.join(" ") }, h("span", {}, group.join(" ")), h("button", { type: "button", "aria-label": `Remove ${group[0]}`, onclick: () => set("extra", extras().filter((_, j) => j !== i).flat()) }, "✕"))));
  const cards = state.gpus.length ? state.gpus : null;
  for (const b of document.querySelectorAll("#presets [data-args]")) b.setAttribute("aria-pressed", String(same(JSON.parse(b.dataset.args))));
  $("cards").replaceChildren(...(cards ?? detectedNames()).map((name, i) => h("span", { class: cards ? "chip" : "chip plain", title: name }, h("span", {}, name === "none" ? "CPU only" : name), cards ? h("button", { type: "button", "aria-label": `Remove ${name}`, onclick: () => set("gpus", state.gpus.filter((_, j) => j !== i)) }, "✕") : null)));
}

const projector = () => library.models.find((m) => m.path === state.model)?.projector ?? "";

function detectedNames() {
  if (!now) return [];
  return now.devices.length ? now.devices.map((d) => d.description || d.name) : ["No GPU found: the CPU alone"];
}

function remarkOf(key, value) {
  if (key === "c" && ladders.ctx?.limit) return `${controls.c[1](value)}; up to ${count(ladders.ctx.limit)} fit`;
  if (key === "c" && ladders.ctx) return `${controls.c[1](value)}; no length fits`;
  return controls[key][1](value);
}

// limit paints where on a slider the model fits, as of the last ladders.
function limit(key, slider, list) {
  const d = ladders[key === "c" ? "ctx" : key];
  slider.classList.toggle("open", !d);
  if (!d) return;
  if (key === "c" && d.limit >= list.at(-1)) {
    slider.style.setProperty("--from", "0%");
    slider.style.setProperty("--to", "100%");
    return;
  }
  const fit = d.points.filter((p) => p.fits).map((p) => p.value);
  if (!fit.length) {
    slider.style.setProperty("--from", "100%");
    slider.style.setProperty("--to", "100%");
    return;
  }
  const most = key === "c" ? d.limit ?? fit.at(-1) : fit.at(-1);
  const at = (v) => {
    const i = list.findLastIndex((s) => s <= v);
    if (i < 0) return 0;
    return (i + (i + 1 < list.length ? (v - list[i]) / (list[i + 1] - list[i]) : 0)) / Math.max(list.length - 1, 1);
  };
  const css = (share) => (share <= 0 ? "0%" : share >= 1 ? "100%" : `calc(10px + (100% - 20px) * ${share.toFixed(4)})`); // the thumb's middle
  slider.style.setProperty("--from", css(fit[0] <= d.points[0].value ? 0 : at(fit[0])));
  slider.style.setProperty("--to", css(at(most)));
}

// --- questions and answers ---

function problem(e) {
  const box = $("problem");
  box.hidden = !e;
  if (!e) return;
  box.replaceChildren(e.message, ...(e.hint ? [h("small", {}, e.hint)] : []));
  $("verdict").dataset.state = "wait";
  $("answer").textContent = "No answer";
  $("why").textContent = now ? "Below are the settings before." : "";
  view(now ? "stale" : "empty");
}

// view says what the cards hold: "loading", the answer ("shown") or an older one
// ("stale"), the model without an answer ("empty"), or nothing ("none").
function view(what) {
  document.body.dataset.view = what;
}

// follow asks for the bytes and the speed at the state, as fast as answers come.
const follow = latest(async () => {
  if (!state.model || !facts) return;
  const of = facts;
  const args = [...settings(), ...hardware()];
  try {
    const [d, p] = await Promise.all([ask("estimate", state.model, args), ask("placement", state.model, args)]);
    if (facts !== of) return; // another model was opened meanwhile
    const other = now === null || (now.devices.length === 0) !== (d.devices.length === 0);
    now = d;
    placed = p;
    problem(null);
    drawVerdict(d);
    drawMemory(d);
    drawSpeed(p.speed);
    drawMap(p);
    drawNotes([...facts.notes, ...d.notes]);
    drawCommand(p.command);
    view("shown");
    document.body.dataset.args = JSON.stringify(args);
    if (other) showTabs();
    showControls();
    if (ladders[over]) showLadder();
  } catch (e) {
    if (facts !== of) return;
    problem(e);
    document.body.dataset.args = JSON.stringify(args);
  }
});

// drawCommand writes a command line that breaks between words.
function drawCommand(line) {
  $("command").replaceChildren(...words(line).flatMap((w, i) => [...(i ? [" "] : []), h("span", {}, w)]));
}

// words splits a line at the blanks outside of quotes; what is in a word stays
// as it is.
const words = (line) => line.match(/(?:'[^']*'|\\.|[^\s'\\])+/g) ?? [];

// consider asks, once the hand rests, what other values would mean.
let quantsOf = "";
let planOf = "";
const consider = idle(220, async (signal) => {
  if (!state.model || !facts) return;
  const of = facts;
  await follow();
  const quiet = async (run) => {
    try {
      await run();
    } catch (e) {
      if (e.name === "AbortError") throw e;
    }
  };
  const given = () => signal.aborted || facts !== of; // up, for newer settings or another model
  const axes = axesOf();
  for (const k of Object.keys(ladders)) if (!axes.includes(k)) delete ladders[k];
  axes.sort((a, b) => (b === over) - (a === over));
  for (const axis of axes) {
    if (given()) return;
    await quiet(async () => {
      const d = await ask("ladder", state.model, [...settings(axis === "ctx" ? "c" : axis), ...hardware(), "--over", axis], signal);
      if (given()) return;
      ladders[axis] = d;
      if (axis === over) showLadder();
      showControls();
    });
  }
  if (given()) return;
  const machine = JSON.stringify([state.model, hardware()]);
  if (planOf !== machine) {
    await quiet(async () => {
      $("presets").replaceChildren(h("p", { class: "hint" }, "looking for the best way…"));
      const d = await plan();
      if (given()) return;
      planOf = machine;
      drawPresets(d, placed?.speed?.decode !== null, { set: (args) => { take(args); changed(); }, buy: (gpus) => set("gpus", gpus), change });
      showControls();
    });
  }
  if (given()) return;
  const kept = ["-c", String(state.c), ...(state.ctk === "f16" ? [] : ["-ctk", state.ctk]), ...(state.ctv === "f16" ? [] : ["-ctv", state.ctv]), ...hardware()];
  const which = JSON.stringify([state.model, kept]);
  if (quantsOf !== which) {
    await quiet(async () => {
      const d = await ask("quants", state.model, kept, signal);
      if (given()) return;
      drawQuants(d, state.c, onlyHost());
      quantsOf = which;
    });
  }
  if (given()) return;
  document.body.dataset.settled = JSON.stringify([...settings(), ...hardware()]);
});

function showLadder() {
  const d = ladders[over];
  if (!d || !now) return;
  const value = { ngl: state.ngl < 0 ? (facts.n_layer ?? 0) + 1 : state.ngl, ncmoe: state.ncmoe, ctx: state.c }[over];
  const free = (now.devices.length ? now.devices : [now.host]).map((r) => r.memory_free);
  drawLadder(d, value, free.length && free.every((f) => f !== null) ? free.reduce((a, b) => a + b, 0) : null, (v) => set(over === "ctx" ? "c" : over, v));
}

// axesOf returns the settings that a curve is drawn over: without a GPU nothing
// can be moved off it.
function axesOf() {
  if (onlyHost()) return ["ctx"];
  return facts?.n_expert ? ["ncmoe", "ngl", "ctx"] : ["ngl", "ctx"];
}

const onlyHost = () => (now ? now.devices.length === 0 : state.gpus[0] === "none");

function showTabs() {
  const axes = axesOf();
  if (!axes.includes(over)) over = axes[0];
  $("over").replaceChildren(...axes.map((axis) => h("button", {
    type: "button", role: "tab", id: `tab-${axis}`, "aria-selected": String(axis === over), tabindex: axis === over ? 0 : -1,
    onclick: () => { over = axis; showTabs(); showLadder(); },
    onkeydown: (e) => {
      const to = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!to) return;
      over = axes[(axes.indexOf(axis) + to + axes.length) % axes.length];
      showTabs();
      showLadder();
      $(`tab-${over}`).focus();
    },
  }, names[axis])));
}

// --- choosing a model ---

// open shows a model. With settings in the address they are kept; else the ones
// that the plan finds best are taken.
let opened = 0;
async function open(path, keep) {
  state.model = path;
  const mine = ++opened;
  facts = null;
  now = null;
  view("loading");
  $("problem").hidden = true;
  $("verdict").dataset.state = "wait";
  $("answer").textContent = "Weighing…";
  $("why").textContent = "";
  for (const k of Object.keys(ladders)) delete ladders[k];
  for (const id of ["bars", "legend", "command", "presets", "ladder", "map", "map-legend", "quants", "facts", "types", "notes"]) $(id).replaceChildren();
  quantsOf = planOf = "";
  const item = library.models.find((m) => m.path === path);
  $("pick-name").textContent = item?.name ?? path;
  document.title = `${item?.name ?? path} · weigh`;
  let read;
  try {
    read = await ask("inspect", path, ["--metadata"]);
  } catch (e) {
    if (mine !== opened) return;
    problem(e);
    view("none");
    return;
  }
  if (mine !== opened) return;
  facts = read;
  over = "";
  drawModel(facts);
  drawMetadata(facts, $("metadata-filter").value);
  if (!keep) {
    Object.assign(state, fresh(), { model: path, gpus: state.gpus, host: state.host });
    const args = await suggest();
    if (mine !== opened) return;
    if (args) take(args);
    else state.c = Math.min(facts.n_ctx_train || 4096, 4096);
  }
  showTabs();
  changed();
}

// suggest returns the flags of the best plan for the machine, or what
// llama-server would settle on by itself where the search takes long or finds
// nothing.
async function suggest() {
  try {
    const d = await Promise.race([plan(), new Promise((done) => setTimeout(done, 1500))]);
    return d?.plans.length ? d.plans[0].args : (await ask("placement", state.model, hardware())).args;
  } catch {
    return null; // what is wrong, the estimate says too
  }
}

// change takes the best plan with some flags fixed.
async function change(args) {
  try {
    const d = await ask("plan", state.model, [...args, ...hardware()]);
    if (d.plans.length) take(d.plans[0].args);
    changed();
  } catch (e) {
    problem(e);
  }
}

// plan asks for the plans of the model on the machine, once for each.
const plans = new Map();
function plan() {
  const key = JSON.stringify([state.model, hardware()]);
  if (!plans.has(key)) {
    const answer = ask("plan", state.model, hardware());
    answer.catch(() => plans.delete(key));
    plans.set(key, answer);
  }
  return plans.get(key);
}

// chooser turns a dialog with a filter and a list into a choice.
function chooser(name, button, items, choose) {
  const [dialog, filter, list] = [$(name), $(`${name}-filter`), $(`${name}-list`)];
  let at = 0;
  let pressed = false;
  const draw = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = items(filter.value).filter((i) => words.every((w) => i.search.includes(w))).slice(0, 300);
    const out = [];
    let group = null;
    for (const i of found) {
      if (i.group !== group) out.push(h("div", { class: "group" }, (group = i.group)));
      out.push(h("button", { type: "button", role: "option", disabled: i.disabled, onclick: () => { dialog.close(); choose(i.value); } }, h("span", {}, i.label), h("span", {}, i.remark)));
    }
    list.replaceChildren(...(found.length ? out : [h("p", {}, "Nothing is called so.")]));
    at = 0;
    mark();
  };
  const mark = () => {
    const buttons = [...list.querySelectorAll("button")];
    buttons.forEach((b, i) => { b.classList.toggle("at", i === at); b.setAttribute("aria-selected", String(i === at)); });
    buttons[at]?.scrollIntoView({ block: "nearest" });
  };
  filter.addEventListener("input", draw);
  filter.addEventListener("keydown", (e) => {
    const buttons = [...list.querySelectorAll("button")];
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      at = Math.min(Math.max(at + (e.key === "ArrowDown" ? 1 : -1), 0), buttons.length - 1);
      mark();
      e.preventDefault();
    } else if (e.key === "Enter") {
      pressed = true;
      e.preventDefault();
    }
  });
  filter.addEventListener("keypress", (e) => { if (e.key === "Enter") e.preventDefault(); });
  // Enter counts when it is let go: the button that opened the dialog has the
  // keyboard next, and would open it again.
  filter.addEventListener("keyup", (e) => {
    if (e.key !== "Enter" || !pressed) return;
    pressed = false;
    list.querySelectorAll("button")[at]?.click();
  });
  button.addEventListener("click", () => { hide(); filter.value = ""; dialog.showModal(); draw(); filter.focus(); });
  return () => { if (dialog.open) draw(); };
}

// scan asks which of the listed models fit the machine and how fast they are.
let scanned = new Map();
let scannedFor = "";
async function scan() {
  library = await models();
  const machine = JSON.stringify(hardware());
  if (scannedFor === machine) return;
  scannedFor = machine;
  scanned = new Map();
  const d = await ask("scan", "", hardware());
  for (const m of d.models) for (const key of [m.ref, m.path]) if (key) scanned.set(key, m);
}

function listed(m) {
  const about = scanned.get(m.path);
  const verdict = { fits: "✓ fits", partial: "◐ in part on the host", no: "✕ does not fit" }[about?.verdict];
  const tps = about?.tokens_per_second ? `${rate(about.tokens_per_second.decode.mid)} tok/s` : null;
  const remark = m.fault ?? [tps, verdict, m.bytes === null ? null : bytes(m.bytes)].filter(Boolean).join(" · ");
  return { value: m.path, label: m.name, remark, search: `${m.name} ${m.path}`.toLowerCase(), group: m.group, disabled: !m.path };
}

let catalog = [];
const vendors = { nvidia: "NVIDIA", amd: "AMD", intel: "Intel", apple: "Apple" };
function chooseCards(text) {
  const size = /^\s*(\d+(?:\.\d+)?)\s*gi?b?\s*$/i.exec(text);
  const own = size ? [{ value: `${size[1]}GiB`, label: `${size[1]} GiB, any CUDA card`, remark: "", search: text.toLowerCase(), group: "size" }] : [];
  return [...own, ...catalog.map((c) => ({ value: c.name, label: c.name, remark: [c.memory ? bytes(c.memory) : "shared memory", c.bandwidth_bytes_per_second ? `${Math.round(c.bandwidth_bytes_per_second / 1e9)} GB/s` : ""].filter(Boolean).join(" · "), search: `${c.name} ${c.vendor}`.toLowerCase(), group: vendors[c.vendor] ?? c.vendor }))];
}

// --- the rest of the page ---

function theme(to) {
  document.documentElement.dataset.theme = to;
}

async function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let saved = null;
  try { saved = localStorage.getItem("theme"); } catch { /* storage is closed: the system's choice */ }
  theme(saved ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!saved) theme(dark.matches ? "dark" : "light"); });
  $("theme").addEventListener("click", () => {
    saved = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    theme(saved);
    try { localStorage.setItem("theme", saved); } catch { /* kept for this page only */ }
  });
  buildControls();
  showControls();
  const redraw = chooser("models", $("pick"), () => library.models.map(listed), (path) => open(path, false));
  $("pick").addEventListener("click", () => scan().then(redraw, () => {}));
  chooser("catalog", $("add-card"), chooseCards, (name) => set("gpus", [...state.gpus.filter((g) => g !== "none"), name]));
  addEventListener("keydown", (e) => {
    if (e.key === "/" && !e.target.closest("input, select, textarea, dialog")) {
      e.preventDefault();
      $("pick").click();
    }
  });
  const copied = (button, text) => async () => {
    const was = button.textContent;
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command"));
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = was; }, 1400);
  };
  $("copy").addEventListener("click", copied($("copy"), () => $("command").textContent));
  $("share").addEventListener("click", copied($("share"), () => location.origin + location.pathname + toHash()));
  $("metadata-filter").addEventListener("input", () => facts && drawMetadata(facts, $("metadata-filter").value));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    if (placed) drawMap(placed);
    showLadder();
  });
  addEventListener("hashchange", () => { fromHash(location.hash); open(state.model, true); });
  try {
    library = await models();
    $("about").textContent = `weigh ${library.version} · figures of llama.cpp 0.5.0 · everything stays on this machine`;
    ask("gpus", "", ["--catalog"]).then((d) => { catalog = d.cards; }, () => {});
    fromHash(location.hash);
    const kept = location.hash.includes("c=") || location.hash.includes("ngl=");
    const first = library.models.find((m) => m.path && !m.fault);
    if (state.model) await open(state.model, kept);
    else if (first) await open(first.path, false);
    else problem({ message: "There is no model to show.", hint: "start weigh serve with a model or a folder, or with --demo" });
  } catch (e) {
    problem(e);
  }
}

start();
