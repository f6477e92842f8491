// The text of one call as it grows, beside the runs.

import { Component, createRef } from "../vendor/preact.mjs";
import { stateOf } from "../fold.js";
import * as format from "../format.js";
import { shareOf } from "../replay.js";
import { whole } from "../texts.js";
import { html, Still } from "./html.js";
import { factsOf, noteOf } from "./run.js";

const RUNNING = new Set(["queued", "connecting", "thinking", "writing", "retrying"]);
const NEAR_PX = 48; // so near to the end counts as being there

const COPIED_MS = 1500;

// props: t, run, lane (its id), prompt (if it was asked here), texts (kind → text, or undefined), textState, lost, act, replay
export class Reader extends Still {
  body = createRef();

  getSnapshotBeforeUpdate(before) {
    const body = this.body.current;
    if (before.run?.id !== this.props.run?.id || before.lane !== this.props.lane) return true;
    return body ? body.scrollHeight - body.scrollTop - body.clientHeight < NEAR_PX : true;
  }

  componentDidUpdate(_props, _state, atEnd) {
    const body = this.body.current;
    if (body && atEnd) body.scrollTop = body.scrollHeight;
  }

  componentDidMount() {
    this.componentDidUpdate(null, null, true);
  }

  render({ t, run, lane: id, prompt, texts, lost, replay, act }) {
    const lane = run?.lanes[id];
    if (!lane) {
      return html`<aside class="reader empty" aria-label=${t("reader")}><p>${t("reader_empty")}</p></aside>`;
    }
    const state = lost ? "lost" : stateOf(run, lane);
    const name = id === "summary" ? t("summary") : id;
    const stoppable = RUNNING.has(state) && id !== "summary" && !replay;
    return html`<aside class="reader" id="reader" aria-label=${`${t("reader")}: ${name}`} data-state=${state}>
      <header>
        <h2>${name} <small>${lane.model}</small></h2>
        ${stoppable &&
        html`<button class="quiet" onClick=${() => act.command(run.id, "cancel_member", id)}>${t("cancel_member")}</button>`}
        ${texts?.text?.pieces.length > 0 && html`<${Copy} t=${t} text=${texts.text} />`}
        <button class="icon" aria-label=${t("close")} title=${`${t("close")} (Esc)`} onClick=${act.close}>
          <svg viewBox="0 0 12 12" aria-hidden="true"><path d="M2 2l8 8M10 2l-8 8" /></svg>
        </button>
        <p class="facts">
          <span class="state">${t(`state_${state}`)}</span>
          <span class="number">${factsOf(t, lane)}</span>
        </p>
      </header>
      ${prompt && html`<p class="prompt" tabindex="0" role="note" aria-label=${t("asked_here")}>${prompt}</p>`}
      <div class="body" ref=${this.body} tabindex="0" role="region" aria-label=${t("reader")}>
        ${noteOf(t, lane, state) && html`<p class=${state === "failed" ? "why" : "hint"}>${noteOf(t, lane, state)}</p>`}
        ${this.text(lane, state)}
      </div>
    </aside>`;
  }

  text(lane, state) {
    const { t, texts = {}, textState, replay } = this.props;
    const { text, reasoning, refusal, tool_call: calls } = texts;
    if (textState === "loading") return html`<p class="hint">${t("loading")}</p>`;
    const share = replay ? shareOf(replay, lane.id) : 1;
    const said = [text, reasoning, refusal, calls].some((one) => one?.pieces.length);
    const missing = text?.start ?? 0;
    let hint = null;
    if (!said) {
      if (textState === "gone") hint = t("text_gone");
      else if (state === "pending" || RUNNING.has(state)) hint = t("no_text_yet");
      else hint = lane.chars ? t("no_text_kept") : null;
    } else if (missing) {
      hint = t("head_missing", format.count(missing));
    }
    return html`${replay && said && html`<p class="hint">${t("replay_text")}</p>`}
      ${hint && html`<p class="hint">${hint}</p>`}
      ${reasoning?.pieces.length > 0 &&
      html`<details class="reasoning" open=${!text?.pieces.length}>
        <summary>${t("reasoning")}</summary>
        <${Pieces} text=${reasoning} share=${share} />
      </details>`}
      ${text?.pieces.length > 0 && html`<${Pieces} text=${text} share=${share} />`}
      ${refusal?.pieces.length > 0 && html`<${Pieces} text=${refusal} share=${share} />`}
      ${calls?.pieces.length > 0 &&
      html`<div class="calls"><${Pieces} text=${calls} share=${share} /></div>`}`;
  }
}

// Where the browser lets pages write to the clipboard: over https, or on this machine.
class Copy extends Component {
  state = { done: false };

  copy = async () => {
    await navigator.clipboard.writeText(whole(this.props.text));
    this.setState({ done: true });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.setState({ done: false }), COPIED_MS);
  };

  componentWillUnmount() {
    clearTimeout(this.timer);
  }

  render({ t }, { done }) {
    if (!navigator.clipboard) return null;
    return html`<button class="quiet" onClick=${this.copy}>${t(done ? "copied" : "copy")}</button>`;
  }
}

// A text in pieces, of which only the last one changes.
class Pieces extends Still {
  render({ text, share }) {
    if (share < 1) {
      const all = whole(text);
      return html`<div class="text">${all.slice(0, Math.floor(all.length * share))}</div>`;
    }
    return html`<div class="text">
      ${text.pieces.map((piece, at) => html`<${Piece} key=${text.first + at} text=${piece} />`)}
    </div>`;
  }
}

class Piece extends Still {
  render({ text }) {
    return html`<span>${text}</span>`;
  }
}
