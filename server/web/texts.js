// The texts of the run that is open: each a growing row of pieces with a cursor. Pure, and bounded.

import { codePoints } from "./fold.js";

export const MAX_UNITS = 256 * 1024; // UTF-16 units kept of one text; beyond them its head goes
const PIECE = 4096; // so large a piece is left alone: it need not be drawn again

// `start`: code points missing at the head; `end`: the cursor, code points told so far.
export const NO_TEXT = { start: 0, end: 0, units: 0, first: 0, pieces: [] };

export function append(text, offset, added) {
  if (offset < text.end) {
    if (offset === 0) return append(NO_TEXT, 0, added); // the lane speaks anew
    added = [...added].slice(text.end - offset).join("");
    offset = text.end;
  }
  if (!added) return text;
  if (offset > text.end) text = { ...NO_TEXT, start: offset, end: offset }; // what came between is not known
  const pieces = text.pieces.slice();
  const last = pieces.length - 1;
  if (last >= 0 && pieces[last].length < PIECE) pieces[last] += added;
  else pieces.push(added);
  let { start, first } = text;
  let units = text.units + added.length;
  while (units > MAX_UNITS && pieces.length > 1) {
    const gone = pieces.shift();
    units -= gone.length;
    start += codePoints(gone);
    first++; // pieces keep their numbers, which are their keys on the page
  }
  if (units > MAX_UNITS) { // one piece that is too long by itself
    let gone = units - MAX_UNITS;
    if (/[\udc00-\udfff]/.test(pieces[0][gone])) gone++; // not through the midst of a character
    start += codePoints(pieces[0].slice(0, gone));
    pieces[0] = pieces[0].slice(gone);
    units -= gone;
  }
  return { start, end: offset + codePoints(added), units, first, pieces };
}

// lane → kind → text, from a run's snapshot.
export function fromSnapshot(told) {
  const texts = {};
  const take = (id, call) => {
    for (const kind of ["text", "reasoning"]) {
      const start = call[`${kind}_start`] ?? 0;
      if (call[kind] !== undefined) {
        const empty = { ...NO_TEXT, start, end: start };
        texts[id] = { ...texts[id], [kind]: call[kind] ? append(empty, start, call[kind]) : empty };
      }
    }
  };
  for (const one of told.members ?? []) take(one.id, one);
  if (told.summary) take("summary", told.summary);
  return texts;
}

// A delta of an event → the new texts.
export function hear(texts, event) {
  if (event.type !== "model.delta" && event.type !== "summary.delta") return texts;
  const id = event.member?.id ?? "summary";
  const { kind, text, text_offset: offset } = event.data;
  const lane = texts[id] ?? {};
  return { ...texts, [id]: { ...lane, [kind]: append(lane[kind] ?? NO_TEXT, offset, text) } };
}

// What a client that comes back says it has.
export function cursors(texts) {
  const told = {};
  for (const [id, kinds] of Object.entries(texts)) {
    for (const [kind, text] of Object.entries(kinds)) told[kind === "text" ? id : `${id}:${kind}`] = text.end;
  }
  return told;
}

export function whole(text) {
  return text ? text.pieces.join("") : "";
}
