// The credential of this tab, for a hub with access control: an API key or a token. It is kept until the tab is closed.

const KEY = "tickertape credential";

/** Dispatches `change` when there is another credential. */
export const credential = new EventTarget();

/** The headers of a request with the credential, if there is one. */
export function credentialHeaders() {
  const text = sessionStorage.getItem(KEY);
  return text ? { Authorization: `Bearer ${text}` } : {};
}

/** Sends a request with the credential. */
export async function send(path, { json, ...options } = {}) {
  const headers = { ...credentialHeaders(), ...(json === undefined ? {} : { "Content-Type": "application/json" }) };
  const response = await fetch(path, { ...options, headers, body: json === undefined ? undefined : JSON.stringify(json) });
  if (isRefused(response.status)) showForm();
  return response;
}

/** Shows the form for a credential if a status says that one is needed. */
export function askFor(status) {
  if (isRefused(status)) showForm();
}

const form = document.getElementById("credential");
const isRefused = (status) => status === 401 || status === 403;

function showForm() {
  form.hidden = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const input = form.elements.credential;
  sessionStorage.setItem(KEY, input.value.trim());
  input.value = "";
  form.hidden = true;
  credential.dispatchEvent(new Event("change"));
});
