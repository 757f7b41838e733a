// The list of photos: filtered, in order, and only as many rows in the page as are seen.

const HEIGHT = 44;

export class PhotoList {
  constructor(rows, space, filters, count, chosen) {
    Object.assign(this, { rows, space, filters, count, chosen, all: [], shown: [], current: null });
    rows.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(rows);
    rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.chosen(this.shown[Number(row.dataset.at)].id);
    });
    rows.addEventListener("keydown", (event) => {
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.move(steps[event.key]);
    });
    for (const select of Object.values(filters)) select.addEventListener("change", () => this.filter());
  }

  set(photos) {
    this.all = photos;
    this.filter();
  }

  update(id, standing) {
    const row = this.all.find((one) => one.id === id);
    if (row) Object.assign(row, standing);
    this.draw();
  }

  filter() {
    const { byClass, byState, byOrder } = this.filters;
    const name = byClass.value, state = byState.value, order = byOrder.value;
    const fits = (row) => (!name || row.classes.includes(name))
      && (!state || (state === "mended" ? row.mended : row.state === state));
    this.shown = this.all.filter(fits);
    if (order === "id") this.shown.sort((a, b) => (a.id < b.id ? -1 : 1));
    else this.shown.sort((a, b) => b[order] - a[order]);
    this.count.textContent = `${this.shown.length} of ${this.all.length} photos`;
    this.space.style.height = `${this.shown.length * HEIGHT}px`;
    this.draw();
  }

  place(id) { return this.shown.findIndex((row) => row.id === id); }

  neighbour(steps) {
    if (!this.shown.length) return null;
    const at = this.place(this.current);
    const next = at < 0 ? 0 : Math.min(Math.max(at + steps, 0), this.shown.length - 1);
    return this.shown[next].id;
  }

  move(steps) {
    const id = this.neighbour(steps);
    if (id !== null && id !== this.current) this.chosen(id);
  }

  select(id) {
    this.current = id;
    const top = this.place(id) * HEIGHT;
    if (top >= 0 && (top < this.rows.scrollTop || top + HEIGHT > this.rows.scrollTop + this.rows.clientHeight)) {
      this.rows.scrollTop = top - this.rows.clientHeight / 3;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / HEIGHT) - 3);
    const stop = Math.min(this.shown.length, first + Math.ceil(this.rows.clientHeight / HEIGHT) + 6);
    const at = this.place(this.current);
    const seen = [...Array(Math.max(0, stop - first)).keys()].map((one) => one + first);
    if (at >= 0 && !seen.includes(at)) seen.push(at); // the active one is always there for screen readers
    this.space.replaceChildren(...seen.map((place) => this.row(this.shown[place], place)));
    if (at >= 0) this.rows.setAttribute("aria-activedescendant", `row-${at}`);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  row(photo, at) {
    const row = document.createElement("div");
    row.className = "row";
    row.id = `row-${at}`;
    row.dataset.at = at;
    row.style.top = `${at * HEIGHT}px`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(photo.id === this.current));
    row.setAttribute("aria-setsize", this.shown.length);
    row.setAttribute("aria-posinset", at + 1);
    const name = document.createElement("b"), facts = document.createElement("span");
    name.textContent = photo.id;
    const done = [photo.state === "open" ? "" : photo.state, photo.mended ? "mended" : "", photo.marks ? `${photo.marks} marks` : ""];
    facts.textContent = [...done.filter(Boolean), `doubt ${photo.doubt.toFixed(2)}`, ...photo.why.slice(0, 1)].join(", ");
    row.append(name, facts);
    return row;
  }
}
