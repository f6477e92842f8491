// Preact with htm in place of JSX; and a component that is drawn again only when its props change.

import { Component, h } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export const html = htm.bind(h);

export class Still extends Component {
  shouldComponentUpdate(next) {
    const before = this.props;
    for (const name in next) if (next[name] !== before[name]) return true;
    return false;
  }
}
