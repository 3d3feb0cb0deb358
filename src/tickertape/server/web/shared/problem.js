// The text of a problem response (RFC 9457). Shared by every page.

/** What a response that is not as hoped says: its problem's sentence, or its status. */
export async function explain(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answered ${response.status}.`;
  }
}
