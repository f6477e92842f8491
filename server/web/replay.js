// A recorded run, played again: its stored events with their times, through the same fold. Pure.
// Deltas are not stored, so within a call its text is shown growing evenly from its first token to its end.

import * as fold from "./fold.js";

export const SPEEDS = [1, 4, 16];

export function begin(id, events) {
  const length = events.at(-1)?.elapsed_ms ?? 0;
  return { id, events, run: fold.emptyRun(id), next: 0, at: 0, speed: 1, length, done: false };
}

// The replay `ms` later.
export function advance(replay, ms) {
  if (replay.done) return replay;
  const at = replay.at + ms * replay.speed;
  let { run, next } = replay;
  while (next < replay.events.length && replay.events[next].elapsed_ms <= at) {
    run = fold.apply(run, replay.events[next]);
    next++;
  }
  return { ...replay, run, next, at, done: next === replay.events.length };
}

// The share of a lane's text that had come by now.
export function shareOf(replay, laneId) {
  const span = replay.run.lanes[laneId]?.spans.at(-1);
  if (!span || span.first === null) return 0;
  if (span.end !== null) return 1;
  const end = replay.events.find(
    (one) =>
      one.elapsed_ms >= span.first &&
      (one.member?.id ?? "summary") === laneId &&
      /^(model\.(finished|failed|cancelled)|summary\.(finished|failed))$/.test(one.type),
  );
  if (!end) return 1;
  return Math.min(1, (replay.at - span.first) / Math.max(1, end.elapsed_ms - span.first));
}
