// The badge at the top of every page: the state of an EventStream, in words, in colour and with a countdown.

const WORDS = { connecting: "Connecting", open: "Open", lost: "Lost", closed: "Disconnected" };

export function showStream(stream, badge = document.getElementById("connection")) {
  const text = badge.querySelector(".badge-text");
  const note = badge.querySelector(".badge-note");
  let timer = 0;
  let retryAt = 0; // of a stream that was lost, until it is open again

  // The note changes every second and is hidden from screen readers; the text is announced, once a state.
  function count() {
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    note.textContent = seconds > 0 ? `retrying in ${seconds} s` : "retrying now";
    if (seconds > 0) timer = setTimeout(count, 250);
  }

  function show() {
    clearTimeout(timer);
    if (stream.state !== "connecting") retryAt = stream.retryAt;
    const state = retryAt ? "lost" : stream.state;
    badge.dataset.state = state;
    if (text.textContent !== WORDS[state]) text.textContent = WORDS[state];
    if (retryAt) count();
    else note.textContent = "";
  }

  stream.addEventListener("statechange", show);
  show();
}
