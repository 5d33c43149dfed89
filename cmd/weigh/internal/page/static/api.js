// Questions to the program: the same documents as its --json.

export class Refused extends Error {
  constructor(document, status) {
    super(document.error);
    this.hint = document.hint;
    this.status = status;
  }
}

export async function ask(command, model, args = [], signal = undefined) {
  let response;
  try {
    response = await fetch(`api/${command}`, {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ model, args }),
    });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Refused({ error: "the program does not answer", hint: "start weigh serve again, then reload this page" }, 0);
  }
  const text = await response.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Refused({ error: text.trim() || `status ${response.status}` }, response.status);
  }
  if (!response.ok) throw new Refused(document, response.status);
  return document;
}

export async function models() {
  const response = await fetch("api/models");
  if (!response.ok) throw new Refused(await response.json(), response.status);
  return response.json();
}

// latest runs one call at a time and, when asked again meanwhile, once more with
// the newest question: a bar follows the hand as fast as the answers come.
export function latest(run) {
  let busy = false;
  let again = false;
  return async function trigger() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await run();
      } while (again);
    } finally {
      busy = false;
    }
  };
}

// idle runs a call when nothing has asked for it for wait milliseconds, and
// gives up the one before.
export function idle(wait, run) {
  let timer;
  let controller;
  return () => {
    clearTimeout(timer);
    controller?.abort();
    timer = setTimeout(async () => {
      controller = new AbortController();
      try {
        await run(controller.signal);
      } catch (e) {
        if (e.name !== "AbortError") throw e;
      }
    }, wait);
  };
}
