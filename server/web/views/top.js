// The head of the page: the state of the line, the settings, the key, the notes, and the prompt box.

import { Component, createRef } from "../vendor/preact.mjs";
import { html, Still } from "./html.js";

const MAX_ASKED = 4; // a browser opens six connections to one server; two stay free for the rest
const THEMES = ["auto", "light", "dark"];

// props: t, lang, theme, phase, code, secondsLeft, everyone, keyed, act
export class Top extends Still {
  render({ t, lang, theme, phase, code, secondsLeft, everyone, keyed, act }) {
    let line = t(phase, code);
    if (phase === "waiting") line = secondsLeft > 0 ? t("waiting", secondsLeft) : t("retrying_now");
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    return html`<header class="top">
      <h1><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M1 4h9M4 8h11M1 12h7" /></svg>Antiphon</h1>
      <span class="line" data-phase=${phase} role="status">${line}</span>
      ${phase === "live" && keyed && html`<span class="scope">${t(everyone ? "all_keys" : "own_key")}</span>`}
      <span class="space"></span>
      ${keyed && html`<button class="quiet" onClick=${act.forgetKey}>${t("forget_key")}</button>`}
      <button class="icon theme" data-theme-is=${theme} title=${t(`theme_${theme}`)} aria-label=${t(`theme_${theme}`)} onClick=${() => act.theme(next)}>
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <circle cx="8" cy="8" r="5.5" />
          ${theme === "auto" && html`<path class="filled" d="M8 2.5a5.5 5.5 0 0 1 0 11z" />`}
          ${theme === "dark" && html`<circle class="filled" cx="8" cy="8" r="5.5" />`}
        </svg>
      </button>
      <button class="icon" lang=${lang === "zh" ? "en" : "zh"} aria-label=${lang === "zh" ? "English" : "中文"} onClick=${() => act.lang(lang === "zh" ? "en" : "zh")}>
        ${lang === "zh" ? "EN" : "中"}
      </button>
    </header>`;
  }
}

export class Notes extends Still {
  render({ t, notes, act }) {
    return html`<div class="notes" role="status">
      ${notes.map(({ id, kind, detail }) => html`<p key=${id} data-note=${kind}>
        <span>${t(`note_${kind}`, detail)}</span>
        <button class="icon" aria-label=${t("dismiss")} onClick=${() => act.dismiss(id)}>
          <svg viewBox="0 0 12 12" aria-hidden="true"><path d="M2 2l8 8M10 2l-8 8" /></svg>
        </button>
      </p>`)}
    </div>`;
  }
}

// props: t, models, model, asked, error, stays, mayStay, ready, act
export class Ask extends Still {
  prompt = createRef();

  send = (event) => {
    event.preventDefault();
    const { asked, ready, model, act } = this.props;
    const text = this.prompt.current.value.trim();
    if (!text || !ready || !model || asked >= MAX_ASKED) return;
    this.prompt.current.value = "";
    act.ask(model, text);
  };

  key = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) this.send(event);
  };

  // What was refused is put back, to be mended.
  componentDidUpdate(before) {
    const { error } = this.props;
    if (error && error !== before.error && !this.prompt.current.value) this.prompt.current.value = error.prompt;
  }

  render({ t, models, model, asked, error, stays, mayStay, ready, act }) {
    const many = asked >= MAX_ASKED;
    const hint = many ? t("asking_many") : asked > 0 ? t("leaving_ends") : "";
    const why = error && (error.told ?? t("note_unreachable"));
    return html`<form class="ask" onSubmit=${this.send}>
      <label class="sr" for="prompt">${t("prompt")}</label>
      <textarea id="prompt" ref=${this.prompt} rows="2" placeholder=${t("prompt_hint")} onKeyDown=${this.key}></textarea>
      <div class="controls">
        <label class="sr" for="model">${t("model")}</label>
        <select id="model" value=${model} disabled=${!models.length} onChange=${(event) => act.model(event.target.value)}>
          ${models.length ? models.map((id) => html`<option key=${id} value=${id}>${id}</option>`) : html`<option>${t("no_models")}</option>`}
        </select>
        <button class="primary" type="submit" title=${t("ask_title")} disabled=${!ready || !model || many}>${t("ask")}</button>
        ${mayStay && html`<label class="stays hint" title=${t("stays_title")}>
          <input type="checkbox" checked=${stays} onChange=${(event) => act.stays(event.target.checked)} />${t("stays")}
        </label>`}
      </div>
      <p class=${why ? "why" : "hint"} role="status">${why || hint}</p>
    </form>`;
  }
}

// props: t, wrong, act. What is typed lives in the field alone.
export class KeyForm extends Component {
  field = createRef();

  componentDidMount() {
    this.field.current.focus();
  }

  send = (event) => {
    event.preventDefault();
    const value = this.field.current.value.trim();
    if (value) this.props.act.key(value);
  };

  render({ t, wrong }) {
    return html`<form class="key" onSubmit=${this.send} aria-labelledby="key-title">
      <h2 id="key-title">${t("key_title")}</h2>
      <label for="key">${t("key_label")}</label>
      <input id="key" ref=${this.field} type="password" autocomplete="off" spellcheck=${false} aria-describedby="key-hint" />
      <button class="primary" type="submit">${t("key_submit")}</button>
      <p id="key-hint" class=${wrong ? "why" : "hint"} role=${wrong ? "alert" : null}>${wrong ? t("key_wrong") : t("key_hint")}</p>
    </form>`;
  }
}
