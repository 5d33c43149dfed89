// What the model is, its quantizations, and the advice.

import { $, h, bytes, count, people, rate, seconds, explain } from "./dom.js";

export function drawModel(d) {
  $("model-name").textContent = d.name || d.path;
  $("model-label").textContent = d.quantization.label;
  const span = (v) => {
    if (!Array.isArray(v)) return v;
    const known = v.filter((n) => n > 0);
    if (!known.length) return null;
    const [lo, hi] = [Math.min(...known), Math.max(...known)];
    return lo === hi ? lo : `${lo} to ${hi}`;
  };
  const facts = [
    ["architecture", d.architecture], ["parameters", d.parameters && people(d.parameters)], ["file", d.file_bytes && bytes(d.file_bytes)], ["bits per weight", d.quantization.bits_per_weight?.toFixed(2)],
    ["layers", d.n_layer], ["hidden size", d.n_embd], ["heads", span(d.n_head)], ["KV heads", span(d.n_head_kv)], ["feed-forward", span(d.n_ff)],
    ["experts", d.n_expert ? `${d.n_expert}, ${span(d.n_expert_used)} used` : null], ["window", d.n_swa], ["vocabulary", d.n_vocab && count(d.n_vocab)], ["trained on", d.n_ctx_train && `${count(d.n_ctx_train)} tokens`],
  ];
  $("facts").replaceChildren(...facts.filter(([, v]) => v !== null && v !== undefined && v !== "" && v !== 0).map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, String(v)))));
  const all = d.quantization.types.reduce((a, t) => a + t.bytes, 0) || 1;
  let at = 0;
  const stack = h("div", { class: "stack" });
  const types = [...d.quantization.types].sort((a, b) => b.bytes - a.bytes);
  types.forEach((t, i) => {
    stack.append(explain(h("div", { class: "seg", "--c": `var(--d${i % 8})`, left: `${(100 * at) / all}%`, "width%": `${(100 * t.bytes) / all}%` }), () => ({ title: `${t.type}: ${bytes(t.bytes)}`, lines: [[count(t.tensors), "tensors"], [people(t.elements), "weights"]] })));
    at += t.bytes;
  });
  $("types").replaceChildren(stack, h("div", { class: "legend" }, types.map((t, i) => h("span", {}, h("i", { "--c": `var(--d${i % 8})` }), `${t.type} ${bytes(t.bytes)}`))));
}

export function drawNotes(notes) {
  $("notes").replaceChildren(...[...new Set(notes)].map((n) => h("li", {}, n)));
}

export function drawMetadata(d, filter) {
  const keys = Object.keys(d.metadata ?? {}).filter((k) => k.toLowerCase().includes(filter.toLowerCase())).sort();
  $("metadata-list").replaceChildren(h("table", {}, h("tbody", {}, keys.map((k) => h("tr", {}, h("td", {}, k), h("td", {}, written(d.metadata[k])))))));
}

function written(v) {
  if (v === null || typeof v !== "object") return String(v);
  return !Array.isArray(v) && v.type && v.length !== undefined ? `${count(v.length)} values of ${v.type}` : JSON.stringify(v);
}

// drawQuants shows every type that llama-quantize knows; own is the model's.
export function drawQuants(d, ctx, onlyHost) {
  const list = d.quants.filter((q) => !q.error).sort((a, b) => (a.file_bytes ?? a.data_bytes) - (b.file_bytes ?? b.data_bytes));
  const size = (q) => q.file_bytes ?? q.data_bytes;
  const most = size(list.at(-1) ?? { data_bytes: 1 });
  const own = d.source.split(" ")[0];
  $("quants-hint").textContent = `${onlyHost ? "in memory" : "all layers on the GPUs"} at ${count(ctx)} tokens`;
  const remarks = (q) => [q.type === own ? "this file" : "", q.requires_imatrix && !q.imatrix ? "needs an importance matrix" : "", q.fallbacks ? `${q.fallbacks} ${q.fallbacks === 1 ? "tensor" : "tensors"} in another type` : ""].filter(Boolean).join("; ");
  $("quants").replaceChildren(h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "type"), h("th", {}, "file"), h("th", { class: "meters" }, ""), h("th", {}, h("abbr", { title: "bits per weight" }, "bits")), h("th", {}, "fits"), h("th", { class: "wide" }, ""))),
    h("tbody", {}, list.map((q) => explain(h("tr", { class: q.type === own ? "own" : "", "data-type": q.type },
      h("td", {}, q.type),
      h("td", {}, bytes(size(q))),
      h("td", { class: "meters" }, h("span", { class: "meter" }, h("i", { "width%": `${(100 * size(q)) / most}%` }))),
      h("td", {}, q.bits_per_weight.toFixed(2)),
      h("td", { class: q.fits ? "yes" : "no" }, q.fits === null ? "" : q.fits ? "✓ fits" : "✕"),
      h("td", { class: "wide" }, remarks(q))), () => ({ title: `${q.type}: ${count(size(q))} bytes`, lines: remarks(q) ? [["", remarks(q)]] : [], remark: q.file_bytes === null ? "The tensors alone; the file adds its metadata." : "The size of the file to the byte." }))))));
  const box = $("quants");
  const row = box.querySelector("tr.own");
  if (row) box.scrollTop = Math.max(0, row.offsetTop - box.clientHeight / 2 + row.offsetHeight / 2);
}

// drawPresets shows the plans, or what would fit; act says what a click does with
// a plan's arguments, cards, or flags to change. A model that generates nothing
// is as fast as it reads.
export function drawPresets(d, generates, act) {
  const pace = (tps) => (generates ? tps.decode : tps.prefill).mid;
  const buttons = (d.plans ?? []).map((p) => preset(title(p.role), pace(p.tokens_per_second), p.settings.n_ctx, p.why, p.args, () => act.set(p.args)));
  if (!buttons.length && d.why) buttons.push(h("p", { class: "hint" }, `No plan fits: ${d.why}`));
  for (const c of d.changes ?? []) buttons.push(preset(title(c.what), pace(c.tokens_per_second), null, c.args.join(" "), null, () => act.change(c.args)));
  for (const q of d.smaller_quants ?? []) buttons.push(h("button", { type: "button", disabled: true }, h("b", {}, `Quantized to ${q.type}`), h("small", {}, `${bytes(q.data_bytes)}, about ${rate(pace(q.tokens_per_second))} tok/s`)));
  for (const m of (d.minimum_hardware ?? []).slice(0, 3)) buttons.push(h("button", { type: "button", class: "buy", onclick: () => act.buy(Array(m.count).fill(m.name)) }, h("b", {}, `${m.count > 1 ? `${m.count} × ` : ""}${m.name}`), h("span", { class: "big" }, rate(pace(m.tokens_per_second)), h("i", {}, " tok/s")), h("small", {}, "holds all of it: try this card")));
  $("presets").replaceChildren(...buttons);
}

const title = (s) => s.charAt(0).toUpperCase() + s.slice(1);

function preset(name, tps, ctx, why, args, click) {
  return h("button", { type: "button", "data-args": args && JSON.stringify(args), onclick: click }, h("b", {}, name),
    h("span", { class: "big" }, rate(tps), h("i", {}, ` tok/s${ctx ? ` · ${count(ctx)} tokens` : ""}`)), why ? h("small", {}, why) : null);
}

// drawSpeed shows tokens per second; each says what it is made of.
export function drawSpeed(s) {
  const set = (id, value, range) => {
    const el = $(id);
    el.querySelector("b").textContent = value;
    el.querySelector(".range").textContent = range;
    return el;
  };
  if (!s) {
    for (const id of ["decode", "prefill", "first"]) explain(set(id, "–", ""), () => ({ title: "unknown", remark: "This model generates no text." }));
    return;
  }
  if (!s.decode) explain(set("decode", "–", "writes no text"), () => ({ title: "It writes no text", remark: "The model reads text as a whole, for embeddings or ranking." }));
  const basis = [s.basis, ...(s.assumed ?? []).map((a) => `assumed: ${a}`)].join("; ");
  if (s.decode) explain(set("decode", rate(s.decode.mid), `${rate(s.decode.low)} to ${rate(s.decode.high)}`), () => ({
    title: `A token takes ${seconds(1 / s.decode.mid)} with ${count(s.depth)} tokens before it`,
    lines: (s.terms ?? []).map((t) => [seconds(t.seconds), t.name, `${t.bytes ? `${bytes(t.bytes)} ` : ""}${t.why}`]), remark: basis,
  }));
  explain(set("prefill", rate(s.prefill.mid), `${rate(s.prefill.low)} to ${rate(s.prefill.high)}`), () => ({ title: `A prompt of ${count(s.prompt)} tokens`, lines: [[`${rate(s.prefill.low)}/s`, "low"], [`${rate(s.prefill.mid)}/s`, "estimate"], [`${rate(s.prefill.high)}/s`, "high"]], remark: basis }));
  $("first").querySelector("dt").textContent = s.decode ? "First word after" : "A prompt is read in";
  explain(set("first", s.first_token_seconds >= 10 ? s.first_token_seconds.toFixed(0) : s.first_token_seconds.toPrecision(2), `${count(s.prompt)} tokens read`), () => ({ title: `${seconds(s.first_token_seconds)} until ${s.decode ? "the first word" : "it is read"}`, remark: `${count(s.prompt)} tokens of prompt at ${rate(s.prefill.mid)} tokens per second` }));
}
