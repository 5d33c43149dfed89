// What the user chose: in the address of the page, and as llama-server's flags.

export const fresh = () => ({ model: "", gpus: [], host: "", c: 8192, ngl: -1, ncmoe: 0, np: 0, ub: 512, ctk: "f16", ctv: "f16", fa: "auto", kvu: "", nkvo: false, swa: false, mm: "", extra: [] });

export const state = fresh();

const numbers = { c: "-c", ngl: "-ngl", ncmoe: "-ncmoe", np: "-np", ub: "-ub" };

// How many values follow the flags that a preset may carry beyond the controls.
const valueless = new Set(["--no-host", "--no-repack", "--no-mmap", "--mtp", "-cmoe"]);

// toHash and fromHash keep the state in the address, so that a link shares it.
export function toHash() {
  const q = new URLSearchParams();
  const base = fresh();
  for (const [k, v] of Object.entries(state)) {
    if (Array.isArray(v)) v.forEach((item) => q.append(k, item));
    else if (v !== base[k]) q.set(k, v === true ? "1" : v);
  }
  return `#${q}`;
}

export function fromHash(hash) {
  const q = new URLSearchParams(hash.replace(/^#/, ""));
  Object.assign(state, fresh());
  for (const [k, base] of Object.entries(fresh())) {
    if (!q.has(k)) continue;
    if (Array.isArray(base)) state[k] = q.getAll(k);
    else if (typeof base === "number") state[k] = Number.isInteger(+q.get(k)) ? +q.get(k) : base;
    else if (typeof base === "boolean") state[k] = q.get(k) === "1";
    else state[k] = q.get(k);
  }
}

// hardware returns the flags that name the machine.
export function hardware() {
  const args = state.gpus.flatMap((g) => ["--gpu", g]);
  return state.host ? [...args, "--host-memory", state.host] : args;
}

// settings returns llama-server's flags, without those of the settings named.
export function settings(...without) {
  const s = state;
  const args = [];
  const add = (key, ...words) => { if (!without.includes(key)) args.push(...words); };
  add("extra", ...s.extra); // of patterns for tensors the first that matches counts
  add("c", "-c", String(s.c));
  if (s.ngl >= 0) add("ngl", "-ngl", String(s.ngl));
  if (s.ncmoe > 0) add("ncmoe", "-ncmoe", String(s.ncmoe));
  if (s.np > 0) add("np", "-np", String(s.np));
  if (s.ub > 2048) add("ub", "-b", String(s.ub));
  if (s.ub !== 512) add("ub", "-ub", String(s.ub));
  if (s.ctk !== "f16") add("ctk", "-ctk", s.ctk);
  if (s.ctv !== "f16") add("ctv", "-ctv", s.ctv);
  if (s.fa !== "auto") add("fa", "-fa", s.fa);
  if (s.kvu) add("kvu", s.kvu);
  if (s.nkvo) add("nkvo", "-nkvo");
  if (s.swa) add("swa", "--swa-full");
  if (s.mm) add("mm", "-mm", s.mm);
  return [...args, "-fit", "off"];
}

// take sets the state from llama-server's flags.
export function take(args) {
  Object.assign(state, read(args));
}

// same reports whether flags say what the state says.
export const same = (args) => JSON.stringify(read(args)) === JSON.stringify(state);

// read returns the state that flags stand for, on the model and machine of now;
// what no control stands for is kept as it is.
function read(args) {
  const { model, gpus, host, mm } = state;
  const out = { ...fresh(), model, gpus, host, mm };
  for (let i = 0; i < args.length; i++) {
    const flag = args[i];
    const number = Object.keys(numbers).find((k) => numbers[k] === flag);
    if (number) out[number] = +args[++i];
    else if (["-m", "-mm", "-fit", "-b"].includes(flag)) i++;
    else if (flag === "-ctk" || flag === "-ctv" || flag === "-fa") out[flag.slice(1)] = args[++i];
    else if (flag === "-kvu" || flag === "-no-kvu") out.kvu = flag;
    else if (flag === "-nkvo") out.nkvo = true;
    else if (flag === "--swa-full") out.swa = true;
    else if (valueless.has(flag)) out.extra.push(flag);
    else out.extra.push(flag, args[++i]);
  }
  return out;
}

// extras splits the flags without a control into [flag, value…] groups.
export function extras() {
  const groups = [];
  for (let i = 0; i < state.extra.length; i++) {
    const flag = state.extra[i];
    groups.push(valueless.has(flag) ? [flag] : [flag, state.extra[++i]]);
  }
  return groups;
}
