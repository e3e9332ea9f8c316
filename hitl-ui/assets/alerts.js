// What a reviewer may switch on and off in this browser: notifications, a sound, keys.

const options = document.querySelector("[data-options]");
const note = document.querySelector("[data-option-note]");
const DEFAULTS = { keys: "on", notify: "off", sound: "off" };

export function on(name) {
  try {
    return (localStorage.getItem(`hitl-${name}`) ?? DEFAULTS[name]) === "on";
  } catch {
    // A browser that keeps nothing.
    return DEFAULTS[name] === "on";
  }
}

export function dress() {
  options.hidden = false;
  for (const box of options.querySelectorAll("[data-option]")) {
    const name = box.dataset.option;
    box.checked = on(name);
    box.addEventListener("change", async () => {
      if (name === "notify" && box.checked && !(await allowed())) {
        box.checked = false;
        note.textContent = "This browser does not allow notifications from this page.";
        return;
      }
      try {
        localStorage.setItem(`hitl-${name}`, box.checked ? "on" : "off");
      } catch {
        note.textContent = "This browser keeps nothing; it counts until the page is left.";
      }
      if (name === "sound" && box.checked) beep();
    });
  }
}

async function allowed() {
  if (!window.Notification) return false;
  return (await Notification.requestPermission()) === "granted";
}

// Tells of new requests, of which the links are given. Every open page does; the tag makes one
// notification of them.
export function tell(links) {
  for (const link of links) {
    if (on("notify") && window.Notification?.permission === "granted" && document.hidden) {
      const [title, ...lines] = [...link.children].map((line) => line.textContent.trim());
      const body = lines.join("\n").replace(/[ \t]+/g, " ");
      const notification = new Notification(title.replace(/\s+/g, " "), {
        body,
        tag: link.dataset.request,
      });
      notification.addEventListener("click", () => {
        window.focus();
        link.click();
      });
    }
  }
  if (links.length && on("sound")) beep();
}

function beep() {
  const audio = new AudioContext();
  const [tone, volume] = [audio.createOscillator(), audio.createGain()];
  tone.frequency.value = 660;
  volume.gain.setValueAtTime(0.15, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.4);
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.4);
  tone.addEventListener("ended", () => audio.close());
}
