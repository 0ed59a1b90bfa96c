/** Requests to the server: every one ends in a result, an Error with one line to show, or an AbortError. */

const GONE = "The server does not answer: is patchmosaic explore still running?";

export class Unreachable extends Error {
  constructor() {
    super(GONE);
  }
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
  if (answer.ok) return answer;
  const refusal = await answer.json().catch(() => ({}));
  throw new Error(refusal.error ?? `The server refused (${answer.status}).`);
}

export const getJson = async (path) => (await request(path)).json();

export const post = async (path, body) => (await request(path, { method: "POST", body })).json();

export const getBlob = async (path) => (await request(path)).blob();

/**
 * Reads a stream of JSON lines up to its result.
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {(line: object) => void} onLine gets every line that is neither result nor error
 */
export async function stream(path, signal, onLine = () => {}) {
  const answer = await request(path, { signal });
  for await (const line of lines(answer.body, signal)) {
    const message = JSON.parse(line);
    if (message.error !== undefined) throw new Error(message.error);
    if (message.result !== undefined) return message.result;
    onLine(message);
  }
  throw new Unreachable();
}

async function* lines(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Unreachable();
    });
    signal.throwIfAborted();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts.filter(Boolean);
  }
}
