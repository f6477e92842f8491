// The status channel: one websocket that outlives its connections. It connects, says who it is, hands on what it
// hears, and comes back when the line breaks. What to subscribe to is its owner's affair, told anew at each `ack`.

const SUBPROTOCOL = "antiphon.events.v1";
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;
const QUIET_MS = 40_000; // the server says something every 25 s
const NEEDS_KEY = new Set([4401, 4403]);
const FATAL = new Set([1002, 1007, 1009, 4400, 4406, 4409]);

export class Channel {
  // on: {ack(message), message(message), down({phase, code, waitMs})}
  constructor(url, key, on) {
    this.url = url;
    this.key = key; // () → the key, or null
    this.on = on;
    this.socket = null;
    this.timer = null;
    this.watchdog = null;
    this.tries = 0;
    this.comeBackMs = null;
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.drop();
    const socket = new WebSocket(this.url, [SUBPROTOCOL]);
    this.socket = socket;
    socket.onopen = () => {
      const token = this.key();
      this.send(token ? { type: "connection_init", token } : { type: "connection_init" });
      this.alive();
    };
    socket.onmessage = ({ data }) => {
      if (this.socket !== socket) return;
      this.alive();
      this.receive(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (this.socket === socket) this.closed(code);
    };
  }

  // At once, instead of when the wait is over.
  hurry() {
    if (this.timer !== null) this.connect();
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.watchdog);
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.drop();
  }

  receive(message) {
    switch (message.type) {
      case "connection_ack":
        this.tries = 0;
        this.comeBackMs = null;
        this.on.ack(message);
        break;
      case "ping":
        this.send({ type: "pong" });
        break;
      case "goaway":
        this.comeBackMs = message.reconnect_after_ms;
        break;
      default:
        this.on.message(message);
    }
  }

  // A line that broke in silence is only noticed by the silence.
  alive() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      this.drop();
      this.closed(1006);
    }, QUIET_MS);
  }

  closed(code) {
    clearTimeout(this.watchdog);
    this.socket = null;
    if (NEEDS_KEY.has(code)) {
      this.on.down({ phase: "key", code, waitMs: null });
    } else if (FATAL.has(code)) {
      this.on.down({ phase: "stopped", code, waitMs: null });
    } else {
      const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.tries++);
      let waitMs = ceiling * (0.5 + Math.random() / 2);
      if (this.comeBackMs !== null) waitMs = this.comeBackMs;
      if (code === 4429) waitMs = Math.max(waitMs, 5000);
      this.comeBackMs = null;
      this.timer = setTimeout(() => this.connect(), waitMs);
      this.on.down({ phase: "waiting", code, waitMs });
    }
  }
}
