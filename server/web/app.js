// The page: one state, drawn anew when it changes; and what the buttons do.

import { Component, render } from "./vendor/preact.mjs";
import * as api from "./api.js";
import * as board from "./board.js";
import { Channel } from "./channel.js";
import { ENDED } from "./fold.js";
import * as replay from "./replay.js";
import { Session } from "./session.js";
import { preferred, words } from "./strings.js";
import { html } from "./views/html.js";
import { Reader } from "./views/reader.js";
import { RunCard } from "./views/run.js";
import { Ask, KeyForm, Notes, Top } from "./views/top.js";

const CLOCK_MS = 100; // how often what is under way is drawn
const FRAME_MS = 40;

const state = {
  now: board.initial({
    lang: localStorage.getItem("antiphon.lang") ?? preferred(navigator.languages),
    theme: localStorage.getItem("antiphon.theme") ?? "auto",
  }),
};

let drawing = false;
let drawnAt = 0;

// The only way to change the state.
function change(step) {
  const before = state.now;
  state.now = step(before);
  if (state.now !== before) wantDraw();
}

function wantDraw() {
  if (drawing) return;
  drawing = true;
  const wait = Math.max(0, drawnAt + FRAME_MS - performance.now());
  setTimeout(() => requestAnimationFrame(draw), wait);
}

function draw() {
  drawing = false;
  drawnAt = performance.now();
  const { lang, theme } = state.now;
  document.documentElement.lang = lang;
  document.documentElement.dataset.theme = theme;
  document.title = words(lang)("title");
  render(html`<${Page} state=${state.now} t=${wordsOf(lang)} />`, document.getElementById("page"));
}

const tables = {};
function wordsOf(lang) {
  tables[lang] ??= words(lang); // one function for one language: what is not changed is not drawn
  return tables[lang];
}

const session = new Session(change, () => state.now);
const channel = new Channel(api.eventsAddress(), api.key.get, session);
session.channel = channel;

const act = {
  lang: (lang) => {
    localStorage.setItem("antiphon.lang", lang);
    change((now) => ({ ...now, lang }));
  },
  theme: (theme) => {
    localStorage.setItem("antiphon.theme", theme);
    change((now) => ({ ...now, theme }));
  },
  model: (model) => change((now) => ({ ...now, model })),
  dismiss: (id) => change((now) => board.dismiss(now, id)),
  key: (value) => {
    api.key.set(value);
    change((now) => ({ ...now, phase: "connecting", keyWrong: false }));
    channel.connect();
  },
  forgetKey: () => {
    api.key.forget();
    location.reload();
  },
  expand: (id) => session.expand(id),
  open: (run, lane) => {
    const { open } = state.now;
    if (open?.run === run && open.lane === lane) act.close();
    else session.open(run, lane);
  },
  close: () => {
    const { open } = state.now;
    session.close();
    if (open) requestAnimationFrame(() => laneButton(open)?.focus());
  },
  command: (run, verb, member) => session.command(run, verb, member),
  stays: (stays) => change((now) => ({ ...now, stays })),
  ask: (model, prompt) => session.ask(model, prompt),
  replay: (id) => session.replay(id),
  speed: (speed) => change((now) => ({ ...now, replay: { ...now.replay, speed } })),
  stopReplay: () => change((now) => ({ ...now, replay: null })),
};

class Page extends Component {
  render({ state, t }) {
    const { phase, lang } = state;
    const secondsLeft = state.retryAt ? Math.ceil((state.retryAt - performance.now()) / 1000) : 0;
    const everyRun = state.order.map((id) => state.runs[id]);
    return html`
      <${Top} t=${t} lang=${lang} theme=${state.theme} phase=${phase} code=${state.code} secondsLeft=${secondsLeft}
        everyone=${state.everyone} keyed=${state.keyed} act=${act} />
      ${phase === "key"
        ? html`<main class="lone"><${KeyForm} t=${t} wrong=${state.keyWrong} act=${act} /></main>`
        : html`<main>
            <${Ask} t=${t} models=${state.models} model=${state.model} asked=${state.asked} error=${state.askError}
              stays=${state.stays} mayStay=${state.mayStay}
              ready=${phase === "live"} act=${act} />
            <${Notes} t=${t} notes=${state.notes} act=${act} />
            <section class="runs" aria-labelledby="runs-title">
              <h2 id="runs-title">${t("runs")} <small>${t("under_way", board.underWay(state).length)}</small></h2>
              ${everyRun.length === 0 && phase === "live" && html`<div class="nothing">
                <p><b>${t("empty_title")}</b></p>
                <p>${t("empty", `POST ${api.address("chat/completions").pathname}`)}</p>
              </div>`}
              ${everyRun.map((run) => this.card(run))}
            </section>
            <p class="keys hint">${t("keys_hint")}</p>
          </main>
          ${this.reader()}`}
      <div class="sr" aria-live="polite">${saidIn(t, state.said)}</div>`;
  }

  card(run) {
    const { state, t } = this.props;
    const extra = state.extra[run.id];
    const shown = state.replay?.id === run.id ? state.replay : null;
    const runs = !ENDED.has(run.status) && !extra.lost && state.phase === "live";
    return html`<${RunCard}
      key=${run.id}
      t=${t}
      lang=${state.lang}
      run=${shown ? shown.run : run}
      extra=${extra}
      prompt=${state.prompts[run.id]}
      selected=${state.open?.run === run.id ? state.open.lane : null}
      clock=${runs ? performance.now() : extra.heard}
      replay=${shown}
      act=${act}
    />`;
  }

  reader() {
    const { state, t } = this.props;
    const { open } = state;
    const shown = open && state.replay?.id === open.run ? state.replay : null;
    return html`<${Reader}
      t=${t}
      run=${open ? (shown ? shown.run : state.runs[open.run]) : null}
      lane=${open?.lane}
      prompt=${open ? state.prompts[open.run] : undefined}
      texts=${open ? state.texts[open.lane] : undefined}
      textState=${state.textState}
      lost=${open ? Boolean(state.extra[open.run]?.lost) : false}
      replay=${shown}
      act=${act}
    />`;
  }
}

function saidIn(t, said) {
  const [what, ...rest] = said.split(":");
  if (what === "began") return t("said_began", rest.join(":"));
  if (what === "ended") return t("said_ended", rest.slice(0, -1).join(":"), t(`status_${rest.at(-1)}`));
  return "";
}

// The clock of what is under way, and of a replay. While nothing runs it does nothing.
let tickedAt = performance.now();
setInterval(() => {
  const now = performance.now();
  const passed = now - tickedAt;
  tickedAt = now;
  if (state.now.replay && !state.now.replay.done) {
    change((before) => ({ ...before, replay: replay.advance(before.replay, passed) }));
  } else if (state.now.retryAt || (state.now.phase === "live" && board.underWay(state.now).length)) {
    wantDraw();
  }
}, CLOCK_MS);

function laneButton({ run, lane }) {
  return document.querySelector(`[data-run="${CSS.escape(run)}"] [data-lane="${CSS.escape(lane)}"]`);
}

function moveFocus(by) {
  const lanes = [...document.querySelectorAll(".lane")];
  const at = lanes.indexOf(document.activeElement);
  const next = lanes[at < 0 ? (by > 0 ? 0 : lanes.length - 1) : Math.min(lanes.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (state.now.open) act.close();
    return;
  }
  const reading = event.target.closest?.(".reader");
  if (typing || (reading && event.key.startsWith("Arrow"))) return;
  const does = { "/": () => document.getElementById("prompt")?.focus(), ArrowDown: () => moveFocus(1), ArrowUp: () => moveFocus(-1) };
  if (does[event.key]) {
    event.preventDefault();
    does[event.key]();
  }
});

addEventListener("online", () => channel.hurry());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) channel.hurry();
});

draw();
channel.connect();
