// Pointers and arrow keys on the photo become lines, boxes and points in photo pixels.

const FINE = 1, FAR = 10;

export class Pen {
  // hooks: tool(), drawn(points), changed()
  constructor(canvas, view, hooks) {
    Object.assign(this, { canvas, view, hooks, points: null, cross: null, touches: new Map() });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.gone(event));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      view.zoomBy(Math.exp(-event.deltaY / 400), canvas, event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cross = null; hooks.changed(); });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    this.touches.set(event.pointerId, this.place(event));
    this.cross = null;
    if (this.touches.size > 1) this.points = null; // a second finger: zoom and move, the line was a mistake
    else if (event.button === 0 && this.hooks.tool() !== "pan") this.begin(...this.view.toPhoto(this.canvas, ...this.place(event)));
    this.hooks.changed();
  }

  move(event) {
    if (!this.touches.has(event.pointerId)) return;
    const before = this.touches.get(event.pointerId), now = this.place(event);
    if (this.touches.size === 2) this.pinch(event.pointerId, before, now);
    else if (this.points) {
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.extend(...this.view.toPhoto(this.canvas, ...this.place(one)));
    } else {
      const scale = this.view.scale(this.canvas);
      this.view.moveBy((before[0] - now[0]) / scale, (before[1] - now[1]) / scale);
    }
    this.touches.set(event.pointerId, now);
    this.hooks.changed();
  }

  pinch(id, before, now) {
    const other = [...this.touches].find(([one]) => one !== id)[1];
    const far = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
    if (far(before) > 0) this.view.zoomBy(far(now) / far(before), this.canvas, other[0], other[1]);
    const scale = this.view.scale(this.canvas);
    this.view.moveBy((before[0] - now[0]) / scale / 2, (before[1] - now[1]) / scale / 2);
  }

  up(event) {
    if (this.touches.size === 1) this.end();
    this.touches.delete(event.pointerId);
  }

  gone(event) {
    this.touches.delete(event.pointerId);
    this.points = null;
    this.hooks.changed();
  }

  begin(x, y) { this.points = [x, y]; }

  extend(x, y) {
    if (this.hooks.tool() === "fill") this.points = [this.points[0], this.points[1], x, y];
    else if (this.hooks.tool() === "click") this.points = [x, y];
    else if (Math.hypot(x - this.points.at(-2), y - this.points.at(-1)) >= 0.5) this.points.push(x, y);
  }

  end() {
    const points = this.points;
    this.points = null;
    if (points) this.hooks.drawn(points);
    this.hooks.changed();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      const far = event.shiftKey ? FAR : FINE, [dx, dy] = steps[event.key];
      const [height, width] = this.view.size;
      this.cross ??= [this.view.x, this.view.y];
      this.cross = [Math.min(width, Math.max(0, this.cross[0] + dx * far)), Math.min(height, Math.max(0, this.cross[1] + dy * far))];
      if (this.points) this.extend(...this.cross);
    } else if (event.key === " " || event.key === "Enter") {
      this.cross ??= [this.view.x, this.view.y];
      if (this.points) this.end();
      else if (this.hooks.tool() !== "pan") {
        this.begin(...this.cross);
        if (event.key === "Enter" && this.hooks.tool() !== "fill") this.end();
      }
    } else if (event.key === "Escape" && this.points) this.points = null;
    else return;
    event.preventDefault();
    this.hooks.changed();
  }
}
