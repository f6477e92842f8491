// What the page does on the channel and over HTTP, and what it makes of the answers.

import * as api from "./api.js";
import * as board from "./board.js";
import * as replay from "./replay.js";
import * as texts from "./texts.js";

const RECENT = 30;
const COUNTED = 4; // so many summaries that nobody reads are counted, for their tokens a second
const FILLED = 12; // so many of the newest runs get the times of their calls unasked

export class Session {
  // `change` takes a pure step from one state to the next, `now` gives the state. `channel` is set by the owner.
  constructor(change, now) {
    this.change = change;
    this.now = now;
    this.channel = null;
    this.topic = "all"; // an admin's; else the runs of the key
    this.epoch = null;
    this.number = 0;
    this.reading = null; // id of the subscription to the open run
    this.counting = new Map(); // subscription → run, of summaries that are counted
    this.filling = [];
    this.commands = new Map(); // id of a command that was not answered yet → its run
    this.busy = false;
  }

  // ---- The channel's callbacks ----

  ack({ epoch }) {
    this.epoch = epoch;
    this.reading = null;
    this.counting.clear();
    this.change((now) => ({ ...now, keyed: api.key.get() !== null, keyWrong: false, code: null }));
    this.follow();
  }

  follow() {
    const { offset, epoch } = this.now();
    const message = { type: "subscribe", id: this.topic, topic: this.topic, include: ["progress"] };
    this.channel.send(offset === null ? message : { ...message, offset, epoch });
  }

  down({ phase, code, waitMs }) {
    for (const id of [...this.commands.keys()]) this.commanded(id, null);
    const wrong = phase === "key" && api.key.get() !== null;
    if (wrong) api.key.forget();
    const retryAt = waitMs === null ? null : performance.now() + waitMs;
    this.change((now) => ({ ...now, phase, code, retryAt, keyWrong: wrong || (phase === "key" && now.keyWrong) }));
  }

  message(message) {
    const at = performance.now();
    switch (message.type) {
      case "subscribed":
        if (message.id === this.topic) this.following(message, at);
        else if (message.id === this.reading) this.change((now) => board.opened(now, now.open?.run, message, at));
        break;
      case "next":
        if (message.id === this.topic) {
          this.change((now) => board.setOffset(board.hear(now, message.event, at), message.offset));
          if (message.event.type === "summary.started") this.count(message.event.run_id);
        } else if (this.counting.has(message.id)) {
          this.change((now) => board.hear(now, message.event, at));
        } else if (message.id === this.reading) {
          this.change((now) => board.hearOpen(now, message.event, at));
        }
        break;
      case "bookmark":
        if (message.id === this.topic) this.change((now) => board.setOffset(now, message.offset));
        break;
      case "complete":
        this.counting.delete(message.id);
        if (message.id === this.reading) {
          this.reading = null;
          this.change((now) => board.textEnded(now, now.open?.run, message.reason));
        }
        break;
      case "result":
        this.commanded(message.id, null);
        break;
      case "error":
        this.commanded(message.id, message.message);
        if (message.id === "all" && message.code === "not_allowed") {
          this.topic = "self";
          this.follow();
        }
        break;
    }
  }

  following(message, at) {
    const { epoch } = this;
    const anew = this.now().epoch !== epoch;
    this.change((now) => {
      const fields = { epoch, head: message.head, snapshot: message.snapshot, wasRecovering: message.was_recovering };
      return { ...board.subscribed(now, fields, at), everyone: this.topic === "all" };
    });
    const { open, extra } = this.now();
    if (open && !extra[open.run]?.gone) this.read(open.run, !anew);
    for (const id of board.underWay(this.now())) this.count(id);
    if (message.snapshot) this.catchUp(anew);
  }

  // Members tell of their progress, summaries do not: the texts of a few are asked for, and only counted.
  count(run) {
    const summary = this.now().runs[run]?.lanes.summary;
    const known = this.now().open?.run === run || [...this.counting.values()].includes(run);
    if (summary?.state !== "started" || known || this.counting.size >= COUNTED) return;
    const id = `count-${++this.number}`;
    this.counting.set(id, run);
    this.channel.send({ type: "subscribe", id, topic: `run:${run}`, include: ["answer"], types: ["summary.delta"] });
  }

  // What a topic's snapshot does not tell: runs that have ended, and what models there are.
  async catchUp(anew) {
    try {
      const [recent, models] = await Promise.all([api.recentRuns(RECENT), anew ? api.models() : null]);
      const at = performance.now();
      this.change((now) => board.recent(now, recent, at));
      if (models) this.change((now) => ({ ...now, models, model: models.includes(now.model) ? now.model : models[0] ?? "" }));
      const { order, runs, extra } = this.now();
      for (const id of order.slice(0, FILLED)) if (runs[id].sketch && !extra[id].gone) this.fill(id);
    } catch (error) {
      if (error instanceof api.Refused) this.change((now) => board.note(now, "command_failed", error.message));
      // Otherwise the line broke again, and the channel comes back here.
    }
  }

  // ---- The times of calls, one run after the other ----

  fill(id) {
    if (!this.filling.includes(id)) this.filling.push(id);
    if (!this.busy) this.fillNext();
  }

  async fillNext() {
    this.busy = true;
    while (this.filling.length) {
      const id = this.filling.shift();
      // What comes over the websocket meanwhile may be ahead of what was fetched: then again.
      for (let tries = 0; tries < 3 && this.now().runs[id]?.sketch; tries++) {
        const events = await api.eventsOf(id).catch(() => null);
        if (!events) break; // a run that is too long or too old stays a sketch
        this.change((now) => board.completedBy(now, id, events));
      }
    }
    this.busy = false;
  }

  // A run is unfolded or folded; one that is known from a snapshot alone gets its times now.
  expand(id) {
    this.change((now) => board.withExtra(now, id, { expanded: !now.extra[id].expanded }));
    const { runs, extra } = this.now();
    if (runs[id].sketch && !extra[id].gone) this.fill(id);
  }

  // ---- Reading a text ----

  open(run, lane) {
    const before = this.now().open?.run;
    this.change((now) => board.open(now, run, lane));
    if (before === run) return;
    this.leave();
    const { extra, runs } = this.now();
    if (extra[run]?.gone) return;
    if (runs[run]?.sketch) this.fill(run);
    this.read(run, false);
  }

  close() {
    this.leave();
    this.change(board.close);
  }

  leave() {
    if (this.reading) this.channel.send({ type: "complete", id: this.reading });
    this.reading = null;
  }

  // more: {wait: true} for a run that has not begun.
  read(run, resuming, more = {}) {
    this.reading = `read-${++this.number}`;
    const include = ["answer", "drafts", "reasoning"];
    const message = { type: "subscribe", id: this.reading, topic: `run:${run}`, include, ...more };
    const { runs, texts: had, textState } = this.now();
    if (resuming && textState === "live") {
      Object.assign(message, { starting_after: runs[run].head, cursors: texts.cursors(had), epoch: this.epoch });
    }
    this.channel.send(message);
  }

  // ---- Buttons ----

  // Over the websocket, where a refusal is an answer like any other. verb: cancel_run, cancel_member, answer_now.
  command(run, verb, member) {
    const id = `command-${++this.number}`;
    this.commands.set(id, run);
    this.change((now) => board.dismiss(board.withExtra(now, run, { busy: verb }), "command_failed"));
    this.channel.send({ type: "control", id, verb, run_id: run, member });
  }

  commanded(id, refusal) {
    const run = this.commands.get(id);
    if (run === undefined) return;
    this.commands.delete(id);
    this.change((now) => (now.runs[run] ? board.withExtra(now, run, { busy: null }) : now));
    if (refusal) this.change((now) => board.note(now, "command_failed", refusal));
  }

  // Starts a run that is read from its first word on: it is subscribed to before it begins.
  async ask(model, prompt) {
    const mine = api.newRunId();
    this.leave();
    this.change((now) => {
      const prompts = { ...now.prompts, [mine]: prompt };
      return { ...board.open(now, mine, null), prompts, asked: now.asked + 1, askError: null, replay: null };
    });
    this.read(mine, false, { wait: true });
    try {
      await api.start(mine, model, prompt, this.now().stays);
    } catch (error) {
      const told = error instanceof api.Refused ? error.message : null;
      if (error.code === "background_not_allowed") this.change((now) => ({ ...now, stays: false, mayStay: false }));
      // A run that began tells its own end.
      if (!this.now().runs[mine]) {
        if (this.now().open?.run === mine) this.close();
        this.change(({ prompts: { [mine]: _prompt, ...prompts }, ...now }) => ({ ...now, prompts, askError: { told, prompt } }));
      }
    }
    this.change((now) => ({ ...now, asked: now.asked - 1 }));
  }

  async replay(id) {
    try {
      const events = await api.eventsOf(id);
      this.change((now) => ({ ...now, replay: replay.begin(id, events) }));
    } catch (error) {
      if (error instanceof api.Refused && (error.status === 410 || error.status === 404)) {
        this.change((now) => board.note(now, "too_old"));
      } else {
        this.change((now) => board.note(now, "unreachable"));
      }
    }
  }
}
