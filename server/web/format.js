// Figures for people. Pure; times are milliseconds.

const CHARS_PER_TOKEN = 4; // as the server estimates where nobody has counted
const STEPS_MS = [1000, 2000, 3000, 5000, 8000, 12000, 20000, 30000, 45000, 60000, 90000, 120000, 180000, 300000];

export function seconds(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 100) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 600_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.floor(ms / 1000) % 60} s`;
}

// The end of a scale: without the noughts that say nothing.
export function axis(ms) {
  const text = seconds(ms);
  return text.includes(".") ? text.replace(/\.?0+ s$/, " s") : text;
}

// What a whole bar stands for while a run is under way: it grows by steps, so that bars grow and do not shrink.
export function scaleFor(ms) {
  const wanted = ms * 1.05;
  return STEPS_MS.find((step) => step >= wanted) ?? Math.ceil(wanted / 300_000) * 300_000;
}

// [tokens, is it an estimate?]
export function tokensOf(lane) {
  if (lane.usage?.completion_tokens) return [lane.usage.completion_tokens, Boolean(lane.usage.estimated)];
  return [Math.max(Math.ceil(lane.chars / CHARS_PER_TOKEN), lane.tokens), true];
}

// Tokens a second since the first one; null while that says nothing.
export function rateOf(lane) {
  const [tokens] = tokensOf(lane);
  let span;
  let before = 0;
  if (lane.latency !== null && lane.ttft !== null) {
    span = lane.latency - lane.ttft;
  } else if (lane.seen) {
    span = lane.seen.last - lane.seen.at;
    before = lane.seen.tokens;
  } else {
    return null;
  }
  return span < 200 || tokens <= before ? null : (tokens - before) / (span / 1000);
}

export function rate(value) {
  return value === null ? "" : `${value < 100 ? value.toFixed(1) : Math.round(value)}`;
}

export function count(value) {
  return value.toLocaleString("en-US");
}

export function clockTime(ms, lang) {
  return new Date(ms).toLocaleTimeString(lang, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}
