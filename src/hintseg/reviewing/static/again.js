// Training again: begins it, says how far it is, and shows the results before and after.

import * as api from "./api.js";

const byId = (id) => document.getElementById(id);
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const SAID = {
  none: "Nothing was trained from this review yet.",
  running: "It is training. You may close this page; the training goes on.",
  stopped: "The training stopped before it was done.",
  done: "Done.",
};

export function setUp(finished) {
  const dialog = byId("again");
  let timer = null;

  async function look() {
    clearTimeout(timer);
    let now;
    try {
      now = await api.training();
    } catch (error) { // the server stopped: the training goes on, and a new server knows of it
      byId("again-state").textContent = error.message;
      timer = setTimeout(look, 1500);
      return;
    }
    const more = { running: `Folder: ${now.out}`, stopped: `Go on with: ${now.command}`, done: `Look at it with: ${now.command}` };
    byId("again-state").textContent = [SAID[now.state], more[now.state]].filter(Boolean).join(" ");
    byId("again-said").textContent = (now.state === "done" ? now.changed : now.said ?? []).join("\n");
    byId("again-said").hidden = !byId("again-said").textContent;
    byId("again-begin").disabled = now.state === "running";
    const kinds = (now.before ?? []).map((row) => [row, (now.after ?? []).find((one) => one.kind === row.kind && one.split === row.split)]);
    byId("again-results").hidden = now.state !== "done" || !kinds.length;
    byId("again-results").tBodies[0].replaceChildren(...kinds.map(([before, after]) => {
      const row = document.createElement("tr");
      for (const text of [`${before.kind} (${before.split})`, before.photos, percent(before.miou), percent(after?.miou)]) {
        row.append(Object.assign(document.createElement("td"), { textContent: text }));
      }
      return row;
    }));
    if (now.state === "running") timer = setTimeout(look, 1500);
    else if (now.state === "done") finished();
  }

  byId("train").addEventListener("click", async () => { dialog.showModal(); await look(); });
  byId("again-begin").addEventListener("click", async () => {
    try {
      await api.train();
      await look();
    } catch (error) {
      byId("again-state").textContent = error.message;
    }
  });
}
