// What is approved beforehand, above what waits: kept true line by line, and gone when its time is over.

import * as clock from "./clock.js";
import { fetched, parsed } from "./list.js";

const place = document.querySelector("[data-beforehand]");
const lines = place.querySelector("ul");

// Milliseconds after its end that one is looked at again; and the longest that a timer waits.
const GRACE = 500;
const LONGEST = 3600000;

let timer;

// Reads the list again.
export async function refresh() {
  const fresh = parsed(await fetched("/queue/beforehand"));
  const gone = new Map([...lines.children].map((line) => [line.dataset.id, line]));
  for (const line of fresh.querySelectorAll("[data-id]")) {
    const old = gone.get(line.dataset.id);
    gone.delete(line.dataset.id);
    if (old) {
      for (const what of ["[data-used]", "form"]) keep(old.querySelector(what), line.querySelector(what));
    } else lines.append(line);
  }
  for (const line of gone.values()) {
    // Whoever was at it is told what the list is, not sent to the top of the page.
    if (line.contains(document.activeElement)) document.querySelector("#beforehand-title").focus();
    line.remove();
  }
  place.querySelector(":scope > p")?.remove();
  place.hidden = !lines.children.length;
  watch();
}

// What may change of a line: how often it was used, and whose session its form is of.
function keep(old, fresh) {
  if (old instanceof HTMLFormElement) {
    if (fresh) old.elements.form_token.value = fresh.elements.form_token.value;
    else old.remove();
  } else if (old.textContent !== fresh.textContent) old.textContent = fresh.textContent;
}

// Looks again when the next one has run out.
export function watch() {
  clearTimeout(timer);
  const ends = [...lines.querySelectorAll("[data-until]")].map((end) => Number(end.dataset.until));
  if (!ends.length) return;
  const left = clock.until(Math.min(...ends)) + GRACE;
  timer = setTimeout(() => refresh().catch(watch), Math.min(Math.max(left, GRACE), LONGEST));
}
