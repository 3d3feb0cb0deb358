// The command for a terminal on a page, with a button that copies it.

const SHOWN = 2_000; // milliseconds

let text = "";
let button = null;

/** Shows a command, or another one instead. It breaks between `parts` only, if there are several. */
export function showCommand(...parts) {
  const place = document.getElementById("command");
  text = parts.join(" ");
  if (parts.length === 1) place.textContent = text;
  else place.replaceChildren(...parts.flatMap((part) => [make("span", part), " "]));
  if (!button && navigator.clipboard) place.after(" ", (button = makeButton())); // without HTTPS there is no clipboard
}

function makeButton() {
  const button = Object.assign(make("button", "Copy"), { type: "button", className: "quiet copy" });
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), SHOWN);
  });
  return button;
}

const make = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });
