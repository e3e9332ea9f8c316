// Looks again whether the gate is back, and goes there once it is: a page that reloads itself would
// begin anew for whoever has it read aloud.
const target = document.querySelector("[data-again]").dataset.again || location.href;

async function look() {
  try {
    const answer = await fetch(target, { signal: AbortSignal.timeout(10000) });
    if (answer.status < 500) return location.replace(target);
  } catch {
    // Still away.
  }
  setTimeout(look, 3000);
}

setTimeout(look, 3000);
