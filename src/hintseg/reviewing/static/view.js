// The photo with a mask over it, in one canvas or several that move together.

export class View {
  constructor(redraw) {
    this.redraw = redraw;
    this.size = [1, 1]; // height, width of the photo
    this.fit();
  }

  fit() { Object.assign(this, { zoom: 1, x: this.size[1] / 2, y: this.size[0] / 2 }); this.redraw(); }

  // Screen pixels per photo pixel in a canvas.
  scale(canvas) {
    return this.zoom * Math.min(canvas.clientWidth / this.size[1], canvas.clientHeight / this.size[0]) * 0.98;
  }

  toPhoto(canvas, x, y) {
    const scale = this.scale(canvas);
    return [(x - canvas.clientWidth / 2) / scale + this.x, (y - canvas.clientHeight / 2) / scale + this.y];
  }

  zoomBy(factor, canvas, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const [px, py] = this.toPhoto(canvas, x, y);
    this.zoom = Math.min(40, Math.max(0.5, this.zoom * factor));
    const [qx, qy] = this.toPhoto(canvas, x, y);
    this.moveBy(px - qx, py - qy);
  }

  moveBy(dx, dy) {
    this.x = Math.min(this.size[1], Math.max(0, this.x + dx));
    this.y = Math.min(this.size[0], Math.max(0, this.y + dy));
    this.redraw();
  }

  // Draw a photo and a mask; `more` draws in photo pixels above them.
  draw(canvas, photo, mask, opacity, more = () => {}) {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!photo) return;
    const scale = this.scale(canvas) * ratio;
    context.setTransform(scale, 0, 0, scale, width / 2 - this.x * scale, height / 2 - this.y * scale);
    context.imageSmoothingEnabled = scale < 3;
    context.drawImage(photo, 0, 0, this.size[1], this.size[0]);
    if (mask) {
      context.globalAlpha = opacity;
      context.imageSmoothingEnabled = false;
      context.drawImage(mask, 0, 0, this.size[1], this.size[0]);
      context.globalAlpha = 1;
    }
    more(context, 1 / this.scale(canvas));
  }
}

export function drawLine(context, points, width, colour) {
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(points[0], points[1]);
  for (let at = 2; at < points.length; at += 2) context.lineTo(points[at], points[at + 1]);
  if (points.length === 2) context.lineTo(points[0] + 0.01, points[1]);
  context.stroke();
}

export function drawPoint(context, x, y, colour, pixel) {
  context.beginPath();
  context.arc(x, y, 5 * pixel, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 2 * pixel;
  context.strokeStyle = "#fff";
  context.stroke();
}
