/** What pages ask their server for. */

/** An answer that is no success, in the server's words for people. */
export class ServerError extends Error {}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServerError("wsiseg does not answer; was it stopped?");
  }
  const text = await answer.text();
  if (answer.ok) return text === "" ? null : JSON.parse(text);
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch {
    // an answer of the guard, which is plain text
  }
  throw new ServerError(message.trim() || `the server answered ${answer.status}`);
}

/** The event by which parts of a page that nobody waits for say that something failed; its detail is the message. */
export const FAILED = "wsiseg-failed";

/**
 * Says why something cannot be had that was not asked for by `get`: it is asked for once more.
 *
 * @param {string} path
 */
export async function reportFailure(path) {
  let detail = "";
  try {
    const answer = await fetch(path);
    if (answer.ok) return; // it was a passing one
    detail = /** @type {{ error: string }} */ (await answer.json()).error;
  } catch {
    detail = "wsiseg does not answer; was it stopped?";
  }
  dispatchEvent(new CustomEvent(FAILED, { detail }));
}

/**
 * JSON from the server.
 *
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export function get(path, signal) {
  return ask(path, { signal });
}

/**
 * Sends a JSON object, and gives what the server answers.
 *
 * @param {string} path
 * @param {object} body
 * @returns {Promise<any>}
 */
export function post(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}
