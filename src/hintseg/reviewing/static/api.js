// What the page asks the server. Changes go one after the other: each names the revision it was made on.

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function answer(response) {
  const said = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, said.error);
  return said;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "the server does not answer: start it again with `hintseg review`; nothing that was saved is lost");
  }
  return answer(response);
}

const post = (path, body) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

export const list = () => ask("api/list");
export const photo = (id) => ask(`api/photo?id=${encodeURIComponent(id)}`);
export const act = (id, revision, action) => post("api/act", { id, revision, action });
export const train = () => post("api/train", {});
export const training = () => ask("api/train");

const bitmaps = new Map();
const MOST = 60;

function bitmap(path) {
  if (!bitmaps.has(path)) {
    const made = fetch(path).then(async (response) => {
      if (!response.ok) await answer(response);
      return createImageBitmap(await response.blob());
    });
    made.catch(() => bitmaps.delete(path));
    bitmaps.set(path, made);
    while (bitmaps.size > MOST) bitmaps.delete(bitmaps.keys().next().value);
  }
  return bitmaps.get(path);
}

export const picture = (id) => bitmap(`photo?id=${encodeURIComponent(id)}`);
export const layer = (id, name, version = 0) =>
  bitmap(`layer?id=${encodeURIComponent(id)}&name=${encodeURIComponent(name)}&v=${version}`);
