// Listens to what happens, once for all pages of this browser: browsers keep few connections to one
// server, and a stream takes one for as long as it is open. The page that holds the lock listens and
// tells the others; when it closes, the next one takes over.

const NAME = "hitl-live";

// Milliseconds until a stream that broke is tried again.
const AGAIN = 1000;

// Calls `hello` when events begin to come, `change` with a request's id for each, `away` when they
// stop coming; whoever says hello again may have missed some.
export function follow(told) {
  if (!navigator.locks || !window.BroadcastChannel) {
    listen((kind, id) => told[kind](id));
    return;
  }
  const channel = new BroadcastChannel(NAME);
  const self = crypto.randomUUID();
  let leads = false;
  let connected = false;
  channel.addEventListener("message", ({ data }) => {
    if (data.kind === "ask") {
      if (leads && connected) channel.postMessage({ kind: "hello", to: data.from });
    } else if (!data.to || data.to === self) {
      told[data.kind](data.id);
    }
  });
  channel.postMessage({ kind: "ask", from: self });
  navigator.locks.request(NAME, () => {
    leads = true;
    return listen((kind, id) => {
      connected = kind !== "away";
      channel.postMessage({ kind, id });
      told[kind](id);
    });
  });
}

// Never ends: the lock is held until the page closes.
function listen(tell) {
  return new Promise(() => {
    const connect = () => {
      const events = new EventSource("/live");
      events.addEventListener("hello", () => tell("hello"));
      events.addEventListener("change", (event) => tell("change", event.data));
      events.addEventListener("error", () => {
        events.close();
        tell("away");
        setTimeout(connect, AGAIN);
      }, { once: true });
    };
    connect();
  });
}
