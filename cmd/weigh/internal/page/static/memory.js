// Memory: the verdict and one stacked bar for each device and the host.

import { $, h, bytes, explain, count } from "./dom.js";

const parts = {
  others: ["in use by others", "--others"],
  weights: ["weights", "--weights"],
  experts: ["experts", "--experts"],
  context: ["KV cache and state", "--cache"],
  compute: ["compute", "--compute"],
  overhead: ["overhead", "--overhead"],
  grows: ["may grow", "--grows"],
};

const growing = new Set(["prompt cache", "checkpoints"]);

// segments takes a row of the estimate apart into what the bar shows.
function segments(row) {
  const terms = { weights: [], experts: [], context: [], compute: [], overhead: [], grows: [] };
  for (const t of row.terms ?? []) {
    if (t.part === "model") terms[t.name === "experts" ? "experts" : "weights"].push(t);
    else if (growing.has(t.name)) terms.grows.push(t);
    else terms[t.part].push(t);
  }
  return Object.entries(terms).map(([part, list]) => ({ part, terms: list, bytes: list.reduce((sum, t) => sum + t.bytes, 0) })).filter((s) => s.bytes > 0);
}

const must = (row) => row.total - segments(row).filter((s) => s.part === "grows").reduce((sum, s) => sum + s.bytes, 0);

function told(row, s) {
  return () => ({
    title: `${parts[s.part][0]}: ${bytes(s.bytes)} = ${count(s.bytes)} bytes`,
    lines: s.terms.map((t) => [bytes(t.bytes), t.name, `${t.why}${t.basis === "exact" ? "" : ` (${t.basis})`}`]),
    remark: s.part === "grows" ? "A limit, filled as prompts come; it does not count against what must fit." : s.part === "compute" && row.exact ? "The same as llama.cpp's own figure, to the byte." : undefined,
  });
}

function bar(row, name, description) {
  const segs = segments(row);
  const need = must(row);
  const { memory_free: free, memory_total: total } = row;
  const others = total !== null && free !== null ? Math.max(total - free, 0) : 0;
  const end = total ?? free ?? null;
  const whole = Math.max(end ?? 0, others + need) || 1;
  const pct = (n) => `${(100 * n) / whole}%`;
  const stack = h("div", { class: "stack" });
  let at = 0;
  const put = (s, width, make) => {
    const label = `${name} ${parts[s.part][0]} ${bytes(s.bytes)}`;
    stack.append(explain(h("div", { class: "seg", tabindex: 0, role: "img", "aria-label": label, "data-part": s.part, "data-bytes": s.bytes, left: pct(at), "width%": pct(width), "--c": `var(${parts[s.part][1]})` }), make));
    at += width;
  };
  if (others > 0) put({ part: "others", bytes: others }, others, () => ({ title: `${bytes(others)} are not free`, remark: name === "Host" ? "Programs and the system hold it, as the system says." : "The driver and other programs hold it; weigh gpus names them." }));
  for (const s of segs) {
    const width = s.part === "grows" ? Math.max(0, Math.min(s.bytes, whole - at)) : s.bytes;
    if (width > 0) put(s, width, told(row, s));
  }
  const over = free !== null && need > free;
  if (end !== null) stack.append(h("div", { class: `limit ${over ? "no" : ""}`, left: pct(end) }));
  if (over) stack.append(h("div", { class: "over", left: pct(end), "width%": pct(others + need - end) }));
  const tight = free !== null && !over && row.total > free;
  const word = free === null ? ["free memory unknown", "tight"] : over ? [`short of ${bytes(need - free)}`, "no"] : tight ? [`${bytes(free - need)} to spare, less than its caches may take`, "tight"] : [`${bytes(free - need)} to spare`, "fits"];
  return h("div", { class: "bar", "data-name": row.name || "host", "data-total": row.total, "data-fits": String(row.fits) },
    h("div", { class: "title" }, h("div", {}, h("b", {}, name), " ", h("span", {}, description)),
      h("em", { class: word[1] }, `${bytes(need)} of ${bytes(free)} · ${word[0]}`)),
    stack,
    h("div", { class: "numbers" }, segs.map((s) => explain(h("span", {}, `${parts[s.part][0]} `, h("b", {}, bytes(s.bytes))), told(row, s)))));
}

export function drawMemory(d) {
  const rows = d.devices.map((row) => bar({ ...row, exact: d.basis.compute === "exact" }, row.name, row.description));
  rows.push(bar({ ...d.host, exact: d.basis.compute === "exact" }, "Host", d.devices.length ? "weights and caches that are not on a GPU, staging" : "everything runs on the CPU"));
  const focus = document.activeElement?.closest?.(".seg");
  const was = focus && [focus.closest(".bar").dataset.name, focus.dataset.part];
  $("bars").replaceChildren(...rows);
  if (was) [...document.querySelectorAll(".seg")].find((s) => s.closest(".bar").dataset.name === was[0] && s.dataset.part === was[1])?.focus();
  const shown = new Set([...document.querySelectorAll("#bars .seg")].map((s) => s.dataset.part));
  $("legend").replaceChildren(...Object.entries(parts).filter(([p]) => shown.has(p)).map(([, [label, color]]) => h("span", {}, h("i", { "--c": `var(${color})` }), label)));
}

export function drawVerdict(d) {
  const rows = [...d.devices, { ...d.host, name: "the host" }];
  const short = rows.filter((r) => !r.fits);
  const tight = rows.some((r) => r.memory_free !== null && r.total > r.memory_free);
  $("verdict").dataset.state = short.length ? "no" : tight ? "tight" : "fits";
  $("verdict").dataset.fits = String(d.fits);
  $("answer").textContent = short.length ? "It does not fit" : "It fits";
  const on = d.devices.length ? `${d.settings.n_gpu_layers} layers on ${d.devices.length === 1 ? d.devices[0].description || d.devices[0].name : `${d.devices.length} GPUs`}` : "on the CPU";
  const least = d.devices.filter((r) => r.memory_free !== null).map((r) => r.memory_free - r.total).sort((a, b) => a - b)[0];
  $("why").textContent = short.length
    ? short.map((r) => `${r.name} lacks ${bytes(must(r) - r.memory_free)}`).join(", ")
    : `${count(d.settings.n_ctx)} tokens of context, ${on}${least >= 0 ? `, ${bytes(least)} spare` : ""}${tight ? "; the prompt cache has no room for its limit" : ""}`;
}
