// The text of a problem response (RFC 9457). Shared by every page.

/** The text of a failed response: the sentence of its problem, or its status. */
export async function explain(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answered ${response.status}.`;
  }
}
