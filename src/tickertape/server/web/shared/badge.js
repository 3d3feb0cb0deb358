// The badge at the top of every page: the state of the connection, in words, in colour and with a countdown.

const WORDS = { connecting: "Connecting", open: "Open", lost: "Lost", closed: "Disconnected" };

export function showConnection(connection, badge = document.getElementById("connection")) {
  const text = badge.querySelector(".badge-text");
  const note = badge.querySelector(".badge-note");
  let timer = 0;

  // The note changes every second and is hidden from screen readers; the text is announced, once a state.
  function count() {
    const seconds = Math.ceil((connection.retryAt - performance.now()) / 1000);
    note.textContent = seconds > 0 ? `retrying in ${seconds} s` : "retrying now";
    if (seconds > 0) timer = setTimeout(count, 250);
  }

  function show() {
    clearTimeout(timer);
    badge.dataset.state = connection.state;
    if (text.textContent !== WORDS[connection.state]) text.textContent = WORDS[connection.state];
    if (connection.state === "lost") count();
    else note.textContent = "";
  }

  connection.addEventListener("change", show);
  show();
}
