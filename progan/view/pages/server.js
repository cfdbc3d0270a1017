// Everything that is asked of the server; addresses are relative to the page's own, which holds the secret.
//
// get(path) -> the JSON there; throws Refused with a sentence. news(onNews, onLost) -> nothing: calls onNews(overview)
// now and at every change, onLost(true) while the server does not answer.
// newest(paint) -> ask(path): fetches pictures; while one is under way the newest wish waits and older ones are dropped.

export class Refused extends Error {}

export async function get(path) {
  let answer;
  try {
    answer = await fetch(path);
  } catch {
    throw new Refused("The viewer does not answer; it may have been ended.");
  }
  if (!answer.ok) throw new Refused((await answer.text()) || `There is nothing here (${answer.status}).`);
  return answer.json();
}

export function news(onNews, onLost) {
  const source = new EventSource("events");
  source.addEventListener("message", ({data}) => {
    onLost(false);
    onNews(JSON.parse(data));
  });
  source.addEventListener("open", () => onLost(false));
  source.addEventListener("error", () => onLost(true));
  addEventListener("pagehide", () => source.close());
}

let visitors = 0;

export function newest(paint) {
  const visitor = `${Math.random().toString(36).slice(2)}${visitors++}`;
  let turn = 0;
  let waiting = null;
  let busy = false;

  async function work() {
    busy = true;
    while (waiting) {
      const path = waiting;
      waiting = null;
      try {
        const answer = await fetch(`${path}&visitor=${visitor}&turn=${++turn}`);
        if (answer.status === 204) continue;
        if (!answer.ok) throw new Refused(await answer.text());
        paint(await createImageBitmap(await answer.blob()), null);
      } catch (error) {
        paint(null, error);
      }
    }
    busy = false;
  }

  return (path) => {
    waiting = path;
    if (!busy) work();
  };
}
