// A run as it stands: the pure fold of its events, as docs/events.md tells them. Nothing here knows of the page,
// the network or the clock. `apply` gives a new run (or the same one, if the event changes nothing).

import { tokensOf } from "./format.js";

export const ENDED = new Set(["completed", "incomplete", "failed", "cancelled"]);
export const LANE_ENDED = new Set(["finished", "failed", "cancelled", "skipped"]);

const MAX_LANES = 256;
const MAX_SPANS = 24; // of one lane: a member that speaks in many rounds
const MAX_MARKS = 16;

export function emptyRun(id) {
  return {
    id,
    head: 0,
    status: "queued",
    createdAt: null,
    elapsed: 0,
    model: "",
    strategy: "",
    level: "none",
    why: null, // of the level
    decided: false, // has a winner been chosen?
    answerBy: null,
    usage: null,
    cost: null,
    error: null,
    cancelledBy: null,
    timings: null,
    marks: [], // {at, kind}: what happened to the run as a whole
    lanes: {}, // in the order of their appearance, the summary last
    sketch: false, // known from a snapshot alone: without the times of its calls
  };
}

function emptyLane(id, model) {
  return {
    id,
    model,
    state: "pending",
    attempt: 1,
    chars: 0,
    tokens: 0,
    ttft: null,
    latency: null,
    kind: null, // of the first token
    code: null,
    http: null,
    retry: null, // why the attempt before this one failed: {code, http}
    message: null,
    reason: null,
    finish: null,
    partial: false,
    usage: null,
    seen: null, // when it was first seen writing: {at, tokens, last}
    spans: [], // {stage, from, began, first, end, how}, in elapsed milliseconds of the run
  };
}

export function apply(run, event) {
  const { type, data } = event;
  if (!event.volatile) {
    if (event.sequence_number <= run.head) return run;
    run = { ...run, head: event.sequence_number };
  } else {
    run = { ...run };
  }
  run.elapsed = Math.max(run.elapsed, event.elapsed_ms);
  const kind = type.slice(0, type.indexOf("."));
  if (kind === "model" && event.member) return applyToMember(run, event);
  if (kind === "summary") return applyToSummary(run, event);
  switch (type) {
    case "run.created":
      return created(run, event);
    case "run.queued":
      run.status = "queued";
      return run;
    case "run.in_progress":
      run.status = "in_progress";
      return run;
    case "run.degraded":
      run.level = data.level;
      run.why = data.reason;
      return run;
    case "run.control":
      return mark(run, event, data.verb, data.target);
    case "decision.made":
      run.decided = true;
      return run;
    case "stage.quorum_reached":
      return mark(run, event, "quorum");
    case "stage.deadline_reached":
      return mark(run, event, "deadline");
    case "run.completed":
    case "run.incomplete":
    case "run.failed":
    case "run.cancelled":
      return ended(run, event);
    default:
      return run;
  }
}

function created(run, event) {
  const { data } = event;
  run.createdAt = Date.parse(event.time);
  run.model = data.model;
  run.strategy = data.strategy;
  const lanes = {};
  for (const one of data.members.slice(0, MAX_LANES)) lanes[one.id] = run.lanes[one.id] ?? emptyLane(one.id, one.model);
  if (data.summary) lanes.summary = run.lanes.summary ?? emptyLane("summary", data.summary);
  run.lanes = lanes;
  return run;
}

function ended(run, event) {
  const { data } = event;
  run.status = event.type.slice(4);
  run.level = data.level ?? run.level;
  run.answerBy = data.answer_by ?? null;
  run.usage = data.usage ?? null;
  run.cost = data.cost ?? null;
  run.timings = data.timings ?? null;
  run.error = data.error ?? null;
  run.cancelledBy = data.by ?? null;
  return run;
}

function mark(run, event, kind, target) {
  run.marks = [...run.marks, { at: event.elapsed_ms, kind, target: target ?? null }].slice(-MAX_MARKS);
  return run;
}

// A new run in which one lane is replaced; the summary stays the last.
function withLane(run, lane) {
  const lanes = { ...run.lanes };
  const fresh = !(lane.id in lanes);
  if (fresh && Object.keys(lanes).length >= MAX_LANES) return run;
  lanes[lane.id] = lane;
  if (fresh && lanes.summary && lane.id !== "summary") {
    const last = lanes.summary;
    delete lanes.summary;
    lanes.summary = last;
  }
  run.lanes = lanes;
  return run;
}

function opened(lane, event, began) {
  const last = lane.spans.at(-1);
  const stage = event.stage?.name ?? null;
  if (last && last.end === null && last.began === null && began) {
    return [...lane.spans.slice(0, -1), { ...last, began: event.elapsed_ms }];
  }
  const at = event.elapsed_ms;
  const span = { stage, from: at, began: began ? at : null, first: null, end: null, how: null };
  return [...lane.spans, span].slice(-MAX_SPANS);
}

function changed(lane, change) {
  const last = lane.spans.at(-1);
  return last ? [...lane.spans.slice(0, -1), { ...last, ...change }] : lane.spans;
}

function applyToMember(run, event) {
  const { type, data, member } = event;
  const before = run.lanes[member.id] ?? emptyLane(member.id, member.model);
  const lane = { ...before, attempt: member.attempt };
  switch (type) {
    case "model.queued":
      again(lane, "queued");
      lane.spans = opened(lane, event, false);
      break;
    case "model.started":
      again(lane, "started");
      lane.spans = opened(lane, event, true);
      break;
    case "model.retrying":
      lane.state = "retrying";
      lane.attempt = data.next_attempt;
      lane.retry = { code: data.code, http: data.http_status };
      break;
    case "model.finished":
      lane.finish = data.finish_reason;
      end(lane, event, "finished");
      break;
    case "model.failed":
      lane.code = data.code;
      lane.http = data.http_status;
      lane.message = data.message;
      lane.partial = data.partial;
      end(lane, event, "failed");
      break;
    case "model.cancelled":
      lane.reason = data.reason;
      lane.partial = data.partial;
      end(lane, event, "cancelled");
      break;
    case "model.skipped":
      lane.reason = data.reason;
      end(lane, event, "skipped");
      break;
    default:
      heard(lane, event, type.slice(6));
  }
  return withLane(run, lane);
}

// A call begins: what an earlier one of this lane came to is over.
function again(lane, state) {
  lane.state = state;
  for (const name of ["ttft", "latency", "kind", "code", "http", "message", "reason", "finish", "usage", "seen"]) {
    lane[name] = null;
  }
  lane.partial = false;
}

function heard(lane, event, kind) {
  const { data } = event;
  if (kind === "first_token") {
    lane.state = "started";
    lane.ttft = data.ttft_ms;
    lane.kind = data.kind;
    lane.spans = changed(lane, { first: event.elapsed_ms });
  } else if (kind === "progress") {
    lane.chars = Math.max(lane.chars, data.chars);
    lane.tokens = Math.max(lane.tokens, data.tokens_estimated);
  } else if (kind === "delta") {
    if (data.kind === "text") lane.chars = Math.max(lane.chars, data.text_offset + codePoints(data.text));
  } else {
    return;
  }
  if (lane.ttft !== null && !LANE_ENDED.has(lane.state)) {
    const at = event.elapsed_ms;
    lane.seen = lane.seen ? { ...lane.seen, last: at } : { at, tokens: tokensOf(lane)[0], last: at };
  }
}

function end(lane, event, state) {
  const { data } = event;
  lane.state = state;
  lane.chars = data.chars ?? lane.chars;
  lane.latency = data.latency_ms ?? null;
  lane.usage = data.usage ?? null;
  lane.spans = changed(lane, { end: event.elapsed_ms, how: state });
}

function applyToSummary(run, event) {
  const { type, data } = event;
  if (type === "summary.started") {
    const before = run.lanes.summary;
    const lane = { ...emptyLane("summary", data.model), state: "started", attempt: data.attempt };
    lane.spans = before?.spans ?? [];
    lane.spans = opened(lane, event, true);
    return withLane(run, lane);
  }
  const lane = { ...(run.lanes.summary ?? emptyLane("summary", "")) };
  if (type === "summary.finished") {
    lane.finish = data.finish_reason;
    end(lane, event, "finished");
  } else if (type === "summary.failed") {
    lane.code = data.code;
    lane.http = data.http_status;
    end(lane, event, "failed");
  } else {
    heard(lane, event, type.slice(8));
  }
  return withLane(run, lane);
}

export function codePoints(text) {
  let units = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit >= 0xd800 && unit < 0xdc00 && at + 1 < text.length) {
      units--;
      at++;
    }
  }
  return units;
}

// The run that a snapshot tells of. What happened when within it is not known: `sketch`.
export function fromSnapshot(told) {
  const run = emptyRun(told.id);
  run.sketch = true;
  run.head = told.head;
  run.status = told.status;
  run.createdAt = told.created_at ? Date.parse(told.created_at) : null;
  run.model = told.model;
  run.strategy = told.strategy;
  run.level = told.level ?? "none";
  run.decided = Boolean(told.decision);
  run.answerBy = told.answer_by ?? null;
  run.usage = told.usage ?? null;
  run.cost = told.cost ?? null;
  run.error = told.error ?? null;
  run.cancelledBy = told.cancelled_by ?? null;
  run.timings = told.timings ?? null;
  run.elapsed = told.timings?.total_ms ?? 0;
  for (const one of (told.members ?? []).slice(0, MAX_LANES)) run.lanes[one.id] = laneOf(one.id, one);
  if (told.summary) run.lanes.summary = laneOf("summary", told.summary);
  return run;
}

function laneOf(id, told) {
  const lane = emptyLane(id, told.model ?? "");
  lane.state = told.state;
  lane.attempt = told.attempt ?? 1;
  lane.chars = told.chars ?? 0;
  lane.tokens = told.tokens_estimated ?? 0;
  lane.ttft = told.ttft_ms ?? null;
  lane.latency = told.latency_ms ?? null;
  lane.code = told.code ?? null;
  lane.reason = told.reason ?? null;
  lane.finish = told.finish_reason ?? null;
  return lane;
}

// Takes over from `live` what `whole`, folded from the stored events, cannot know.
export function completed(whole, live) {
  const run = { ...whole, elapsed: Math.max(whole.elapsed, live.elapsed), lanes: { ...whole.lanes } };
  for (const [id, lane] of Object.entries(live.lanes)) {
    const mine = run.lanes[id];
    if (!mine) run.lanes[id] = lane;
    else if (mine.chars < lane.chars || mine.tokens < lane.tokens) {
      run.lanes[id] = { ...mine, chars: Math.max(mine.chars, lane.chars), tokens: Math.max(mine.tokens, lane.tokens) };
    }
  }
  return run;
}

// What a lane is doing, in one of the words that the page has for it.
export function stateOf(run, lane) {
  if (lane.state === "pending" && ENDED.has(run.status)) return "unneeded";
  if (lane.state !== "started") return lane.state;
  if (lane.ttft === null) return "connecting";
  return lane.kind === "reasoning" && lane.chars === 0 ? "thinking" : "writing";
}
