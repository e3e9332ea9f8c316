// Counts down and up, by the server's clock: a reviewer's own may be wrong. Nothing here is announced
// to screen readers.

let ahead = 0;

// The server's time, in milliseconds, as a page or a part of it says.
export function set(now) {
  ahead = Number(now) - Date.now();
}

// Milliseconds until a moment of the server's.
export function until(moment) {
  return moment - Date.now() - ahead;
}

function rough(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 600) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  if (seconds < 3600) return `${minutes} min`;
  if (seconds < 172800) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export function tick() {
  const now = Date.now() + ahead;
  for (const place of document.querySelectorAll("[data-until]")) {
    write(place, rough(place.dataset.until - now));
  }
  for (const place of document.querySelectorAll("[data-since]")) {
    const since = now - place.dataset.since;
    if (place instanceof HTMLProgressElement) place.value = Math.min(place.max, since / 1000);
    else if (!("ago" in place.dataset)) write(place, rough(since));
    else write(place, since < 5000 ? "just now" : `${rough(coarse(since))} ago`);
  }
}

// How long ago something was changes often enough by tens of seconds.
function coarse(since) {
  return since < 60000 ? Math.floor(since / 10000) * 10000 || since : Math.floor(since / 60000) * 60000;
}

export function start() {
  tick();
  setInterval(tick, 1000);
}
