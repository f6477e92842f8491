// The HTTP side of the public API. The key travels in a header, never in an address.

const KEY = "antiphon.key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.code ?? null;
  }
}

export function address(path) {
  return new URL(`v1/${path}`, document.baseURI);
}

export function eventsAddress() {
  const url = address("events");
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  const token = key.get();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const options = { method, headers, body: sent, signal, cache: "no-store", credentials: "omit", redirect: "error" };
  const response = await fetch(address(path), options);
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Refused(response.status, told?.error);
  }
  return response;
}

export async function models() {
  return (await (await call("models")).json()).data.map((one) => one.id);
}

export async function recentRuns(limit) {
  return (await (await call(`runs?limit=${limit}`)).json()).data;
}

// All stored events of a run. Throws Refused (410) if its first ones are no longer kept.
export async function eventsOf(id) {
  const events = [];
  for (let after = 0; ; ) {
    const page = await (await call(`runs/${id}/events?starting_after=${after}`)).json();
    events.push(...page.data);
    if (!page.has_more) return events;
    after = page.last;
  }
}

export function newRunId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `run_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// Starts a run, and stays until it has ended: a client that leaves would end it. Asked for as a stream, since only
// then every upstream tells its text as it comes; the answer itself is not kept here, it comes as events. A run that
// `stays` goes on in the background, whoever leaves; it cannot be a stream.
export async function start(id, model, prompt, stays) {
  const how = stays ? { antiphon: { background: true } } : { stream: true };
  const body = { model, ...how, messages: [{ role: "user", content: prompt }] };
  const response = await call("chat/completions", { method: "POST", body, headers: { "x-run-id": id } });
  const reader = response.body.getReader();
  while (!(await reader.read()).done);
}
