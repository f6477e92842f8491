// What the page knows: one state, and the pure functions that take it further. No network, no clock: whoever
// calls says what time it is.

import * as fold from "./fold.js";
import * as texts from "./texts.js";

export const MAX_RUNS = 60;
const MAX_NOTES = 4;

export function initial(settings) {
  return {
    lang: settings.lang,
    theme: settings.theme,
    phase: "connecting", // connecting, live, waiting, key, stopped
    code: null, // of the close that stopped it
    retryAt: null, // ms of the page's clock
    keyed: false, // does the server ask for a key, and has it got one?
    keyWrong: false,
    everyone: false, // are the runs of all keys shown?
    epoch: null,
    offset: null,
    runs: {}, // id → run
    order: [], // ids, the newest first
    extra: {}, // id → {heard, expanded, lost, busy, gone}: what the page adds to a run
    open: null, // {run, lane, follows}: the lane is null until the run tells of its calls; does it go to the winner?
    texts: {}, // of the open run
    textState: "none", // none, loading, live, done, gone
    replay: null, // {id, run, events, next, at, speed, length}
    models: [],
    model: "",
    prompts: {}, // id → what this page asked; no event tells of it
    stays: false, // is what is asked to go on when the page is closed?
    mayStay: true, // until the server says that this key may not
    asked: 0, // requests of this page that are under way
    askError: null, // {told (what the server said, or null), prompt}
    notes: [], // {id, kind, detail}
    said: "", // for those who hear the page
  };
}

export function note(state, kind, detail = "") {
  const others = state.notes.filter((one) => one.kind !== kind);
  return { ...state, notes: [...others, { id: kind, kind, detail }].slice(-MAX_NOTES) };
}

export function dismiss(state, id) {
  return { ...state, notes: state.notes.filter((one) => one.id !== id) };
}

export function withExtra(state, id, change) {
  return { ...state, extra: { ...state.extra, [id]: { ...state.extra[id], ...change } } };
}

function put(state, run, extra, atEnd) {
  if (run.id in state.runs) {
    state = { ...state, runs: { ...state.runs, [run.id]: run } };
    return extra ? withExtra(state, run.id, extra) : state;
  }
  const order = atEnd ? [...state.order, run.id] : [run.id, ...state.order];
  state = { ...state, runs: { ...state.runs, [run.id]: run }, order };
  return bounded(withExtra(state, run.id, extra ?? {}));
}

// Lets go of the oldest runs, those that have ended first; never of the one that is open.
function bounded(state) {
  if (state.order.length <= MAX_RUNS) return state;
  const oldest = [...state.order].reverse().filter((id) => id !== state.open?.run);
  const ended = (id) => fold.ENDED.has(state.runs[id].status) || state.extra[id].lost;
  const id = oldest.find(ended) ?? oldest[0];
  const { [id]: _run, ...runs } = state.runs;
  const { [id]: _extra, ...extra } = state.extra;
  const { [id]: _prompt, ...prompts } = state.prompts;
  return { ...state, runs, extra, prompts, order: state.order.filter((one) => one !== id) };
}

// An event of the runs that are followed. Of a run that is not known only its beginning is taken.
export function hear(state, event, now) {
  const known = state.runs[event.run_id];
  if (!known && event.type !== "run.created") return state;
  const before = known ?? fold.emptyRun(event.run_id);
  const run = fold.apply(before, event);
  if (run === before) return state;
  const extra = { heard: now };
  if (!known) extra.expanded = true;
  state = put(state, run, extra, false);
  if (event.type === "run.created") {
    state = { ...state, said: `began:${run.model}` };
  }
  if (state.open?.follows && state.open.run === run.id) state = following(state, run, event);
  if (fold.ENDED.has(run.status) && !fold.ENDED.has(before.status)) state = runEnded(state, run);
  return state;
}

// A run that was asked for here: what is read is its answer, as soon as it is known who gives it.
function following(state, run, event) {
  let lane = event.type === "decision.made" ? event.data.winner : run.answerBy;
  if (event.type === "run.created") lane = run.lanes.summary ? "summary" : Object.keys(run.lanes)[0];
  return lane && lane in run.lanes ? { ...state, open: { ...state.open, lane } } : state;
}

function runEnded(state, run) {
  state = withExtra(state, run.id, { busy: null });
  return { ...state, said: `ended:${run.model}:${run.status}` };
}

// The text of the run that is open, and its events, which the topic may have told already.
export function hearOpen(state, event, now) {
  if (state.open?.run !== event.run_id) return state;
  const heard = texts.hear(state.texts, event);
  if (heard !== state.texts) state = { ...state, texts: heard };
  return hear(state, event, now);
}

export function setOffset(state, offset) {
  return offset === undefined ? state : { ...state, offset };
}

// The subscription stands. Without `snapshot` everything that was missed follows; with it some may be lost.
export function subscribed(state, { epoch, head, snapshot, wasRecovering }, now) {
  const restarted = state.epoch !== null && state.epoch !== epoch;
  const before = state;
  state = { ...state, phase: "live", retryAt: null, epoch };
  if (!snapshot) return state;
  state = { ...state, offset: head };
  if (wasRecovering) state = note(state, restarted ? "restarted" : "gap");
  const told = new Set(snapshot.data.map((one) => one.id));
  for (const one of [...snapshot.data].sort((a, b) => (a.created_at < b.created_at ? -1 : 1))) {
    const mine = before.runs[one.id];
    const run = fold.fromSnapshot(one);
    state = put(state, mine && mine.head >= run.head ? mine : run, { heard: now, expanded: true, lost: false }, false);
  }
  for (const id of state.order) {
    if (told.has(id)) continue;
    const ended = fold.ENDED.has(state.runs[id].status);
    if (restarted) state = withExtra(state, id, { gone: true, lost: !ended, busy: null });
    else if (!ended) state = withExtra(state, id, { stale: true });
  }
  if (restarted && state.open && !told.has(state.open.run)) state = { ...state, textState: "gone" };
  if (restarted && state.replay) state = { ...state, replay: null };
  return state;
}

// Recent runs, newest first, as GET /v1/runs tells them.
export function recent(state, list, now) {
  for (const told of list) {
    const mine = state.runs[told.id];
    if (!mine) {
      const ended = fold.ENDED.has(told.status);
      state = put(state, fold.fromSnapshot(told), { heard: now, expanded: !ended }, true);
    } else if (state.extra[told.id].stale) {
      if (told.head > mine.head) state = put(state, fold.fromSnapshot(told), { heard: now }, false);
      state = withExtra(state, told.id, { stale: false });
    }
  }
  for (const id of state.order) {
    if (state.extra[id].stale) state = withExtra(state, id, { stale: false, gone: true, lost: true });
  }
  const time = (id) => state.runs[id].createdAt ?? 0;
  return { ...state, order: [...state.order].sort((a, b) => time(b) - time(a)) };
}

// The stored events of a run, from its first: now the times of its calls are known too.
export function completedBy(state, id, events) {
  const live = state.runs[id];
  if (!live) return state;
  let run = fold.emptyRun(id);
  for (const event of events) run = fold.apply(run, event);
  if (run.head < live.head) return state;
  return put(state, fold.completed(run, live), null, false);
}

export function open(state, run, lane) {
  const same = state.open?.run === run;
  state = { ...state, open: { run, lane, follows: lane === null } };
  if (same) return state;
  state = { ...state, texts: {}, textState: state.extra[run]?.gone ? "gone" : "loading" };
  return run in state.runs ? withExtra(state, run, { expanded: true }) : state;
}

export function close(state) {
  return { ...state, open: null, texts: {}, textState: "none" };
}

// The open run's subscription stands.
export function opened(state, id, { snapshot }, now) {
  if (state.open?.run !== id) return state;
  state = { ...state, textState: "live" };
  if (!snapshot) return state;
  state = { ...state, texts: texts.fromSnapshot(snapshot) };
  // A run whose events are followed needs no snapshot: what it is ahead by is on its way.
  const mine = state.runs[id];
  if (mine && (!mine.sketch || mine.head >= snapshot.head)) return state;
  return put(state, fold.fromSnapshot(snapshot), { heard: now }, false);
}

export function textEnded(state, id, reason) {
  if (state.open?.run !== id) return state;
  return { ...state, textState: reason === "run_ended" ? "done" : "gone" };
}

// Milliseconds since the run was accepted, as far as that can be known.
export function elapsed(run, extra, now) {
  if (run.timings?.total_ms !== undefined) return run.timings.total_ms;
  if (fold.ENDED.has(run.status) || extra?.lost || !extra?.heard) return run.elapsed;
  if (run.sketch && run.createdAt) return Math.max(run.elapsed, now - extra.heard);
  return run.elapsed + Math.max(0, now - extra.heard);
}

export function underWay(state) {
  return state.order.filter((id) => !fold.ENDED.has(state.runs[id].status) && !state.extra[id].lost);
}
