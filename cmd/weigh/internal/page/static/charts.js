// The curve over one setting, and the map of layers.

import { $, h, svg, bytes, rate, count, explain, show } from "./dom.js";

const device = (i) => (i < 0 ? "var(--dhost)" : `var(--d${i % 8})`);

// drawLadder draws speed over memory for every value of a setting. now is the
// current value; choose is called with the one that is clicked.
export function drawLadder(d, now, capacity, choose) {
  const box = $("ladder");
  const width = Math.max(box.clientWidth, 280);
  const [left, right, top, mid, gap, low, bottom] = [46, 14, 16, 168, 28, 66, 24];
  const height = top + mid + gap + low + bottom;
  const points = d.points.filter((p) => !p.error);
  if (points.length < 2) {
    box.replaceChildren(h("p", { class: "hint" }, d.points[0]?.error ?? "nothing to compare"));
    return;
  }
  const log = d.over === "ctx";
  const scale = (v) => (log ? Math.log2(Math.max(v, 1)) : v);
  const [x0, x1] = [scale(points[0].value), scale(points.at(-1).value)];
  const x = (v) => left + ((scale(v) - x0) / (x1 - x0 || 1)) * (width - left - right);
  const reads = points.every((p) => p.decode === null); // it generates nothing
  const pace = (p) => (reads ? p.prefill : p.decode);
  const most = nice(Math.max(...points.map((p) => pace(p) ?? 0)));
  const y = (v) => top + mid * (1 - v / most);
  const onHost = points[0].devices.length === 0;
  const sum = (p) => (onHost ? p.host : p.devices.reduce((a, b) => a + b, 0));
  const full = Math.max(capacity ?? 0, ...points.map(sum)) || 1;
  const base = top + mid + gap + low;
  const m = (v) => base - low * (v / full);
  const el = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": summary(d, points, pace), tabindex: 0 });
  for (const v of [0, most / 2, most]) {
    el.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }), svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, v >= 10 || v === 0 ? String(Math.round(v)) : v.toFixed(1)));
  }
  el.append(svg("text", { x: left, y: top - 5 }, reads ? "tokens per second, reading" : "tokens per second, generating"), svg("text", { x: left, y: top + mid + gap - 6 }, onHost ? "memory of the host" : "memory of the GPUs"));
  const step = (width - left - right) / Math.max(points.length - 1, 1);
  for (let i = 0; i < points.length; i++) {
    if (points[i].fits) continue;
    let j = i;
    while (j + 1 < points.length && !points[j + 1].fits) j++;
    const from = Math.max(left, i ? (x(points[i - 1].value) + x(points[i].value)) / 2 : left);
    const to = j + 1 < points.length ? (x(points[j].value) + x(points[j + 1].value)) / 2 : width - right;
    el.append(svg("rect", { class: "nofit", x: from, y: top, width: Math.max(to - from, 1), height: base - top }));
    if (to - from > 76) el.append(svg("text", { x: (from + to) / 2, y: top + mid - 8, "text-anchor": "middle" }, "does not fit"));
    i = j;
  }
  const path = (list, fy) => list.map((p, i) => `${i ? "L" : "M"}${x(p.value).toFixed(1)} ${fy(p).toFixed(1)}`).join("");
  for (const run of runs(points)) {
    const line = run.list.filter((p) => pace(p) !== null);
    if (line.length === 0) continue;
    if (run.fits) el.append(svg("path", { class: "under", d: `${path(line, (p) => y(pace(p)))}L${x(line.at(-1).value)} ${y(0)}L${x(line[0].value)} ${y(0)}Z` }));
    el.append(svg("path", { class: run.fits ? "good" : "never", d: path(line, (p) => y(pace(p))) }));
  }
  el.append(svg("path", { class: "used", d: `${path(points, (p) => m(sum(p)))}L${x(points.at(-1).value)} ${base}L${x(points[0].value)} ${base}Z` }), svg("line", { class: "grid", x1: left, x2: width - right, y1: base, y2: base }));
  if (capacity) el.append(svg("line", { class: "cap", x1: left, x2: width - right, y1: m(capacity), y2: m(capacity) }), svg("text", { x: left - 8, y: m(capacity) + 4, "text-anchor": "end" }, bytes(capacity).replace(/\.?0* (.)iB/, "$1")));
  for (const v of ticks(points.map((p) => p.value), log, width)) el.append(svg("text", { x: x(v), y: height - 6, "text-anchor": "middle" }, log ? short(v) : String(v)));
  const here = nearest(points, now);
  const hx = x(now >= points[0].value ? Math.min(now, points.at(-1).value) : points[0].value);
  el.append(svg("line", { class: "now", x1: hx, x2: hx, y1: top, y2: base }));
  if (pace(here) !== null) {
    el.append(svg("circle", { class: `dot ${here.fits ? "" : "no"}`, cx: hx, cy: y(pace(here)), r: 6 }));
    const end = hx > width - 110;
    el.append(svg("text", { class: "strong", x: hx + (end ? -11 : 11), y: Math.max(y(pace(here)) - 9, top + 10), "text-anchor": end ? "end" : "start" }, `${rate(pace(here))} tok/s`));
  }
  for (const p of points) {
    const hit = svg("rect", { class: "hit", x: x(p.value) - step / 2, y: top, width: Math.max(step, 1), height: base - top, onclick: () => choose(p.value) });
    el.append(explain(hit, () => ({
      title: `${names[d.over]}: ${count(p.value)}`,
      lines: [
        ...(p.decode !== null ? [[`${rate(p.decode)}/s`, "tokens generated"]] : []), ...(p.prefill !== null ? [[`${rate(p.prefill)}/s`, "tokens of a prompt read"]] : []),
        ...p.devices.map((b, i) => [bytes(b), `on GPU ${i}`]), [bytes(p.host), "on the host"],
      ],
      remark: p.fits ? "Click to set it." : "It does not fit.",
    })));
  }
  put(box, el, nearestAt(points, now));
}

// put shows a chart. Its columns explain themselves to the keyboard too: the
// arrows go through them, enter does what a click does.
function put(box, el, from) {
  const hits = [...el.querySelectorAll(".hit")];
  let at = from;
  el.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -hits.length, End: hits.length }[e.key];
    if (step !== undefined) {
      at = Math.min(Math.max(at + step, 0), hits.length - 1);
      show(hits[at]);
    } else if (e.key === "Enter") hits[at].dispatchEvent(new MouseEvent("click"));
    else return;
    e.preventDefault();
  });
  const focused = box.contains(document.activeElement);
  box.replaceChildren(el);
  if (focused) el.focus();
}

export const names = { ngl: "Layers on GPUs", ncmoe: "Layers with experts on the CPU", ctx: "Context" };

function summary(d, points, pace) {
  const fit = points.filter((p) => p.fits);
  if (fit.length === 0) return `${names[d.over]}: no value fits`;
  const best = fit.reduce((a, b) => ((pace(b) ?? 0) > (pace(a) ?? 0) ? b : a));
  return `${names[d.over]}: fits from ${fit[0].value} to ${fit.at(-1).value}, fastest at ${best.value} with ${rate(pace(best) ?? 0)} tokens per second`;
}

// runs splits points into stretches that fit and that do not; neighbours share
// the point between them.
function runs(points) {
  const out = [];
  for (const p of points) {
    const last = out.at(-1);
    if (last && last.fits === p.fits) last.list.push(p);
    else {
      if (last && !last.fits) last.list.push(p);
      out.push({ fits: p.fits, list: last && last.fits ? [last.list.at(-1), p] : [p] });
    }
  }
  return out;
}

function nice(v) {
  if (!(v > 0)) return 1;
  const p = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 4, 5, 6, 8, 10].map((f) => f * p).find((f) => f >= v * 1.02) ?? 10 * p * 2;
}

const nearest = (points, v) => points.reduce((a, b) => (Math.abs(b.value - v) < Math.abs(a.value - v) ? b : a));

const nearestAt = (points, v) => points.indexOf(nearest(points, v));

const short = (n) => (n >= 1024 ? `${+(n / 1024).toFixed(n % 1024 ? 1 : 0)}K` : String(n));

function ticks(values, log, width) {
  const [a, b] = [values[0], values.at(-1)];
  const room = Math.floor(width / 64);
  const out = [];
  if (log) {
    for (let v = a; v <= b; v *= 2) out.push(v);
    while (out.length > room) out.splice(0, out.length, ...out.filter((_, i) => i % 2 === 0));
    return out;
  }
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 32].find((s) => (b - a) / s <= room) ?? 40;
  for (let v = a; v <= b; v += step) out.push(v);
  return out;
}

// drawMap draws each layer as a column: how large, and on which device.
export function drawMap(d) {
  const box = $("map");
  const width = Math.max(box.clientWidth, 280);
  const left = width < 500 ? 60 : 94;
  const rows = [["weights", d.experts && width >= 500 ? "dense weights" : "weights"], ["experts", "experts"], ["cache", "cache"]].filter(([kind]) => d.layers.some((l) => l.parts.some((p) => p.kind === kind && p.bytes > 0)));
  const rowHeight = 46;
  const top = 4;
  const n = d.layers.length;
  const step = (width - left) / n;
  const w = Math.max(step - (step > 7 ? 2 : step > 4 ? 1 : 0), 1);
  const place = (i) => (i < 0 ? "the host" : d.devices[i] || `GPU ${i}`);
  const el = svg("svg", { viewBox: `0 0 ${width} ${top + rows.length * (rowHeight + 10) + 34}`, height: top + rows.length * (rowHeight + 10) + 34, role: "img", "aria-label": spoken(d, place), tabindex: 0 });
  rows.forEach(([kind, label], r) => {
    const y0 = top + r * (rowHeight + 10);
    el.append(svg("text", { x: 0, y: y0 + rowHeight / 2 + 4 }, label), svg("line", { class: "grid", x1: left, x2: width, y1: y0 + rowHeight, y2: y0 + rowHeight }));
    const inner = d.layers.slice(1, -1);
    const tall = Math.max(...(inner.length ? inner : d.layers).map((l) => total(l, kind))) || 1;
    d.layers.forEach((l, i) => {
      let y = y0 + rowHeight;
      for (const p of l.parts.filter((q) => q.kind === kind && q.bytes > 0)) {
        const high = Math.max(1.5, (Math.min(total(l, kind), tall) * p.bytes / total(l, kind) / tall) * rowHeight);
        y -= high;
        el.append(svg("rect", { x: left + i * step, y, width: w, height: high, rx: Math.min(2, w / 3), fill: device(p.device) }));
      }
    });
  });
  const y0 = top + rows.length * (rowHeight + 10);
  el.append(svg("text", { x: 0, y: y0 + 9 }, "runs on"));
  d.layers.forEach((l, i) => {
    el.append(svg("rect", { x: left + i * step, y: y0, width: w, height: 9, rx: Math.min(2, w / 3), fill: device(l.home) }));
    const name = l.index < 0 ? "Input" : l.index === n - 2 ? "Output" : `Layer ${l.index}`;
    const hit = svg("rect", { class: "hit cell", x: left + i * step, y: 0, width: step, height: y0 + 10 });
    el.append(explain(hit, () => ({
      title: `${name}, runs on ${place(l.home)}`,
      lines: l.parts.filter((p) => p.bytes > 0).map((p) => [bytes(p.bytes), `${p.kind} on ${place(p.device)}`, p.kind === "cache" ? `${bytes(p.read)} of it read for each token before` : `${bytes(p.read)} of it read for each token`]),
      remark: l.parts.every((p) => !p.bytes) ? "It shares the weights of the embeddings." : undefined,
    })));
  });
  const every = [1, 2, 4, 8, 16, 32].find((s) => step * s >= 26) ?? 32;
  for (let i = 1; i < n - 1 && (n - 1 - i) * step > 34; i += every) el.append(svg("text", { x: left + i * step + w / 2, y: y0 + 25, "text-anchor": "middle" }, String(i - 1)));
  el.append(svg("text", { x: left + (n - 1) * step + w, y: y0 + 25, "text-anchor": "end" }, "out"));
  put(box, el, 0);
  const used = [...new Set(d.layers.flatMap((l) => [l.home, ...l.parts.map((p) => p.device)]))].sort((a, b) => a - b);
  $("map-legend").replaceChildren(...used.map((i) => h("span", {}, h("i", { "--c": device(i) }), i < 0 ? "host" : place(i))));
}

const total = (l, kind) => l.parts.filter((p) => p.kind === kind).reduce((a, p) => a + p.bytes, 0);

function spoken(d, place) {
  const on = new Map();
  for (const l of d.layers) on.set(place(l.home), (on.get(place(l.home)) ?? 0) + 1);
  return `Layers: ${[...on].map(([name, k]) => `${k} run on ${name}`).join(", ")}`;
}
