// A run as a card: its headline, a lane for each call, and what it came to.

import { elapsed } from "../board.js";
import { ENDED, LANE_ENDED, stateOf } from "../fold.js";
import * as format from "../format.js";
import { SPEEDS } from "../replay.js";
import { html, Still } from "./html.js";

const AT_ONCE = new Set(["direct", "fallback"]); // nothing is gathered that could be answered from

// props: t, lang, run, extra, prompt (if it was asked here), selected (lane or null), clock (changes while it runs),
// act, replay
export class RunCard extends Still {
  render({ t, run, extra, selected, clock, act, replay }) {
    const now = replay ? replay.at : elapsed(run, extra, clock);
    const over = ENDED.has(run.status) || extra.lost;
    const scale = replay ? Math.max(replay.length, 1) : over ? Math.max(now, 1) : format.scaleFor(now);
    const expanded = extra.expanded || replay;
    const state = extra.lost ? "lost" : run.status;
    return html`<article class="run" data-run=${run.id} data-status=${state} aria-labelledby=${`${run.id}-name`}>
      ${this.headline(state, now)}
      ${expanded &&
      html`<div class="lanes" role="group" aria-labelledby=${`${run.id}-name`}>
          <div class="columns" aria-hidden="true">
            <span></span><span>${t("column_call")}</span>
            <span class="axis"><span>0</span><span>${format.axis(scale)}</span></span>
            <span>${t("column_state")}</span><span class="number">${t("column_first")}</span>
            <span class="number">${t("column_tokens")}</span><span class="number">${t("column_rate")}</span>
          </div>
          ${Object.values(run.lanes).map(
            (lane) => html`<${Lane}
              key=${lane.id}
              t=${t}
              run=${run.id}
              lane=${lane}
              state=${extra.lost && !LANE_ENDED.has(lane.state) ? "lost" : stateOf(run, lane)}
              now=${ENDED.has(run.status) || LANE_ENDED.has(lane.state) || lane.state === "pending" ? 0 : Math.floor(now / 100) * 100}
              scale=${scale}
              marks=${run.marks}
              winner=${run.answerBy === lane.id}
              chosen=${selected === lane.id}
              open=${act.open}
            />`,
          )}
        </div>
        ${this.bill(over)}`}
    </article>`;
  }

  headline(state, now) {
    const { t, lang, run, extra, prompt, act, replay } = this.props;
    const over = ENDED.has(run.status) || extra.lost;
    const by = run.cancelledBy ? ` ${t(`by_${run.cancelledBy}`)}` : "";
    const count = Object.keys(run.lanes).length;
    return html`<header class="headline">
      <button
        class="fold"
        aria-expanded=${Boolean(extra.expanded || replay)}
        aria-label=${t("show_lanes", run.model)}
        onClick=${() => act.expand(run.id)}
      >
        <svg viewBox="0 0 12 12" aria-hidden="true"><path d="M4 2l4 4-4 4" /></svg>
      </button>
      <span class="dot" aria-hidden="true"></span>
      <h3 id=${`${run.id}-name`}>${run.model || run.id.slice(0, 12)}</h3>
      <span class="strategy">${run.strategy}${count > 1 ? ` · ${t("calls", count)}` : ""}</span>
      <span class="status">${t(`status_${state}`)}${by}</span>
      <span class="elapsed number">${over && extra.lost ? "" : format.seconds(Math.round(now))}</span>
      ${run.level !== "none" && html`<span class="chip warn" title=${run.why && t(`reason_${run.why}`)}>${t(`level_${run.level}`)}</span>`}
      ${replay && html`<span class="chip">${t("replaying")}</span>`}
      ${extra.gone && html`<span class="chip">${t("earlier")}</span>`}
      <span class="asked" title=${prompt && prompt.slice(0, 1000)}>${prompt && prompt.slice(0, 200)}</span>
      ${run.createdAt && html`<time class="when">${format.clockTime(run.createdAt, lang)}</time>`}
      <code class="id" title=${run.id}>${run.id.slice(4, 10)}</code>
      <span class="buttons">${this.buttons(over)}</span>
    </header>`;
  }

  buttons(over) {
    const { t, run, extra, act, replay } = this.props;
    if (replay) {
      return html`${SPEEDS.map(
          (speed) => html`<button
            class="quiet"
            aria-pressed=${replay.speed === speed}
            aria-label=${t("speed", speed)}
            onClick=${() => act.speed(speed)}
          >
            ${speed}×
          </button>`,
        )}
        <button onClick=${act.stopReplay}>${t("stop_replay")}</button>`;
    }
    if (over) {
      if (extra.gone) return null;
      return html`<button class="quiet" onClick=${() => act.replay(run.id)}>${t("replay")}</button>`;
    }
    const busy = extra.busy;
    const drafting = run.lanes.summary?.state !== "started" && !run.decided && !AT_ONCE.has(run.strategy);
    return html`${drafting &&
      html`<button
        title=${t("answer_now_title")}
        disabled=${Boolean(busy)}
        onClick=${() => act.command(run.id, "answer_now")}
      >
        ${t(busy === "answer_now" ? "answering_now" : "answer_now")}
      </button>`}
      <button class="danger" disabled=${busy === "cancel_run"} onClick=${() => act.command(run.id, "cancel_run")}>
        ${t(busy === "cancel_run" ? "cancelling" : "cancel")}
      </button>`;
  }

  // What the run came to. While it runs the line is there too, so that nothing moves at its end.
  bill(over) {
    const { t, run } = this.props;
    const words = run.marks.filter((one) => t(`mark_${one.kind}`, "") !== one.kind).map((one) => {
      return t(`mark_${one.kind}`, format.seconds(one.at));
    });
    if (over) {
      if (run.answerBy && run.answerBy !== "summary") words.push(t("answer_by", run.answerBy));
      if (run.timings?.first_text_ms !== undefined) words.push(t("first_text", format.seconds(run.timings.first_text_ms)));
      if (run.usage) {
        words.push(t("tokens_total", `${run.usage.estimated ? "~" : ""}${format.count(run.usage.total_tokens ?? 0)}`));
      }
      if (run.cost !== null) words.push(t("cost", Number(run.cost.toPrecision(4))));
    }
    const error = run.error && `${run.error.code ?? run.error.type}: ${run.error.message}`;
    return html`<footer class="bill">
      ${error && html`<span class="why">${error}</span>`}
      <span>${words.join(" · ")}</span>
    </footer>`;
  }
}

// props: t, run (its id), lane, state, now, scale, marks, winner, chosen, open
class Lane extends Still {
  render({ t, run, lane, state, winner, chosen, open }) {
    const [tokens, estimated] = format.tokensOf(lane);
    const value = format.rateOf(lane);
    return html`<button
      class="lane"
      data-lane=${lane.id}
      data-state=${state}
      aria-pressed=${chosen}
      aria-label=${labelOf(t, lane, state)}
      onClick=${() => open(run, lane.id)}
    >
      <span class="sign" aria-hidden="true"></span>
      <span class="name">
        <b title=${lane.id}>${lane.id === "summary" ? t("summary") : lane.id}${winner && html`<i class="winner">★</i>`}</b>
        <small title=${lane.model}>${lane.model}</small>
      </span>
      <span class="course">
        ${this.bar()}
        <small class="note">${noteOf(t, lane, state)}</small>
      </span>
      <span class="state">${t(`state_${state}`)}</span>
      <span class="number">${format.seconds(lane.ttft)}</span>
      <span class="number">${tokens ? `${estimated ? "~" : ""}${format.count(tokens)}` : ""}</span>
      <span class="number">${format.rate(value)}</span>
    </button>`;
  }

  bar() {
    const { lane, now, scale, marks } = this.props;
    const part = (from, to, kind) => {
      const left = Math.min(100, (100 * from) / scale);
      const width = Math.max(0.4, Math.min(100 - left, (100 * (to - from)) / scale));
      return html`<span class=${`part ${kind}`} style=${{ left: `${left}%`, width: `${width}%` }}></span>`;
    };
    return html`<span class="bar" aria-hidden="true">
      ${spansOf(lane).map((span) => {
        const end = span.end ?? Math.max(now, span.first ?? span.began ?? span.from);
        const began = span.began ?? end;
        const first = span.first ?? end;
        return [
          began > span.from && part(span.from, began, "queue"),
          first > began && part(began, first, "quiet"),
          span.first !== null && part(first, end, "text"),
          span.end !== null && span.how !== "finished" && part(end, end, `end ${span.how}`),
        ];
      })}
      ${marks.map((mark) => {
        const left = `${Math.min(100, (100 * mark.at) / scale)}%`;
        return html`<span class="mark" data-kind=${mark.kind} style=${{ left }}></span>`;
      })}
    </span>`;
  }
}

// Of a run that is known from a snapshot alone the times are guessed: as if each call had begun with the run.
function spansOf(lane) {
  if (lane.spans.length || lane.latency === null) return lane.spans;
  const how = lane.state;
  return [{ stage: null, from: 0, began: 0, first: lane.ttft, end: lane.latency, how }];
}

// What is worth a word: above all why a call failed.
export function noteOf(t, lane, state) {
  const words = [];
  if (state === "failed" || (state === "retrying" && lane.retry)) {
    const { http, code } = state === "failed" ? lane : lane.retry;
    const what = [http, code].filter(Boolean).join(" ");
    words.push(lane.message && state === "failed" ? `${what}: ${lane.message}` : what);
  } else if (lane.reason) {
    words.push(t(`reason_${lane.reason}`));
  } else if (lane.finish && lane.finish !== "stop") {
    words.push(t(`reason_${lane.finish}`));
  }
  if (lane.attempt > 1) words.push(t("attempt", lane.attempt));
  if (lane.partial) words.push(t("used_partial"));
  return words.filter(Boolean).join(" · ");
}

// The figures of a lane in words.
export function factsOf(t, lane) {
  const [tokens, estimated] = format.tokensOf(lane);
  const value = format.rateOf(lane);
  const words = [];
  if (lane.ttft !== null) words.push(`${t("column_first")} ${format.seconds(lane.ttft)}`);
  if (tokens) words.push(t("tokens_total", `${estimated ? "~" : ""}${format.count(tokens)}`));
  if (value !== null) words.push(`${format.rate(value)} ${t("column_rate")}`);
  if (lane.latency !== null) words.push(format.seconds(lane.latency));
  return words.join(" · ");
}

// What a lane says to those who hear the page: all of it, with the names of its columns.
function labelOf(t, lane, state) {
  const name = lane.id === "summary" ? t("summary") : lane.id;
  const words = [`${name} ${lane.model}`, t(`state_${state}`), noteOf(t, lane, state), factsOf(t, lane)];
  return words.filter(Boolean).join(", ");
}
