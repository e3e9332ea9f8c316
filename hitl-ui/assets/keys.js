// Keys for whoever decides often. They arm, Enter confirms: no single key decides anything.

import { on } from "./alerts.js";
import * as detail from "./detail.js";
import * as list from "./list.js";

const help = document.querySelector("[data-keys-help]");

const keys = {
  j: () => list.move(1),
  k: () => list.move(-1),
  a: () => arm("approve"),
  r: () => arm("reject"),
  "/": () => document.querySelector("#q").focus(),
  "?": () => help.showModal(),
  Escape: () => detail.headline()?.focus(),
};

// Puts the focus on a button, where Enter presses it.
function arm(decision) {
  const button = detail.button(decision);
  if (!button) return detail.say("There is nothing here for you to decide.");
  const why = detail.why(button);
  if (why) return detail.say(why);
  button.focus();
  detail.say(`${button.textContent}: ${detail.headline().textContent}. Enter confirms, Escape lets go.`);
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (!on("keys") || event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = "input:not([type=radio]), textarea, select, dialog[open]";
    if (event.target.closest(writes)) return;
    // One that is held down presses nothing.
    if (event.repeat && event.key === "Enter") return event.preventDefault();
    const action = keys[event.key];
    if (!action || (event.repeat && !"jk".includes(event.key))) return;
    event.preventDefault();
    action();
  });
}
