"use strict";
// Interactive 3D skeleton on a canvas. Drag to rotate; focus the canvas and use the wheel to zoom; slider and keys set the frame.
// Data comes from viewer_data in viewer.py: whole millimetres, world Z up; null is a joint that was not reconstructed.
const INK = { left: "#0072b2", right: "#d55e00", middle: "#4d5660" };

function start(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const canvas = box.querySelector("canvas");
  const [slider, button, label, room] = ["input[type=range]", "button", "output", "input[type=checkbox]"].map((s) => box.querySelector(s));
  const view = { azimuth: data.azimuth, elevation: 0.22, zoom: 1 };
  let playing = false, clock = 0;

  function draw() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.lineCap = "round";
    const radius = (room.checked ? data.roomRadius : data.radius) / view.zoom, distance = 4 * radius;
    const scale = 0.46 * Math.min(width * 0.7, height) * distance / radius;
    // The viewing direction is (ca, sa), tilted down by the elevation; depth increases away from the eye.
    // The eye looks along a horizontal direction (ca, sa) turned down by the elevation; depth grows away from the eye.
    const see = (p) => {
      const x = p[0] - data.centre[0], y = p[1] - data.centre[1], z = p[2] - data.centre[2];
      const ahead = x * ca + y * sa, right = x * sa - y * ca;
      const depth = distance + ahead * ce - z * se, up = z * ce + ahead * se;
      return depth > 0.05 * distance ? [width / 2 + scale * right / depth, height / 2 - scale * up / depth, depth] : null;
    };
    const line = (a, b, colour, thick) => {
      const [p, q] = [see(a), see(b)];
      if (!p || !q) return;
      g.strokeStyle = colour;
      g.lineWidth = thick;
      g.beginPath();
      g.moveTo(p[0], p[1]);
      g.lineTo(q[0], q[1]);
      g.stroke();
    };
    drawFloor(data, line, room.checked ? data.roomRadius : data.radius);
    if (room.checked) drawCameras(data, line, see, g);
    drawPeople(data, data.xyz[slider.value], see, g, distance);
    label.textContent = `frame ${data.frames[slider.value]} · ${(data.frames[slider.value] / data.fps).toFixed(3)} s`;
  }

  function tick(now) {
    if (!playing) return;
    const last = data.frames.length - 1, origin = data.frames[0];
    const span = (data.frames[last] - origin + 1) / data.fps;
    const frame = origin + ((now / 1000 - clock) % span) * data.fps;
    let i = 0;
    while (i < last && data.frames[i + 1] <= frame) i += 1;
    if (Number(slider.value) !== i) { slider.value = i; draw(); }
    requestAnimationFrame(tick);
  }

  function play(on) {
    playing = on;
    button.textContent = on ? "Pause" : "Play";
    if (!on) return;
    clock = performance.now() / 1000 - (data.frames[slider.value] - data.frames[0]) / data.fps;
    requestAnimationFrame(tick);
  }

  function step(by) {
    play(false);
    slider.value = Number(slider.value) + by;
    draw();
  }

  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); canvas.focus(); });
  canvas.addEventListener("pointermove", (e) => {
    if (!canvas.hasPointerCapture(e.pointerId)) return;
    view.azimuth -= e.movementX * 0.008;
    view.elevation = Math.max(-0.3, Math.min(1.55, view.elevation + e.movementY * 0.008));
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas) return;
    e.preventDefault();
    view.zoom = Math.max(0.3, Math.min(8, view.zoom * Math.exp(-e.deltaY * 0.0012)));
    draw();
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { Object.assign(view, { azimuth: data.azimuth, elevation: 0.22, zoom: 1 }); draw(); });
  canvas.addEventListener("keydown", (e) => {
    const action = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": () => play(!playing) }[e.key];
    if (action) { e.preventDefault(); action(); }
  });
  slider.addEventListener("input", () => { play(false); draw(); });
  button.addEventListener("click", () => play(!playing));
  room.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  draw();
}

function drawFloor(data, line, radius) {
  // Grid on the plane z = 0: 0.5 m squares, or 2 m squares in a large room.
  const side = radius > 4000 ? 2000 : 500, count = Math.ceil(1.2 * radius / side);
  const [cx, cy] = [Math.round(data.centre[0] / side) * side, Math.round(data.centre[1] / side) * side];
  for (let i = -count; i <= count; i += 1) {
    line([cx + i * side, cy - count * side, 0], [cx + i * side, cy + count * side, 0], "#dfe5ea", 1);
    line([cx - count * side, cy + i * side, 0], [cx + count * side, cy + i * side, 0], "#dfe5ea", 1);
  }
}

function drawCameras(data, line, see, g) {
  const edges = [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]];
  g.font = "13px system-ui, sans-serif";
  for (const camera of data.cameras) {
    for (const [a, b] of edges) line(camera.corners[a], camera.corners[b], "#8a96a3", 1.2);
    const at = see(camera.corners[0]);
    g.fillStyle = "#39444e";
    if (at) g.fillText(camera.name.slice(0, 40), at[0] + 8, at[1] - 6);
  }
}

function drawPeople(data, people, see, g, distance) {
  const bones = [];
  people.forEach((joints, person) => {
    const seen = joints.map((p) => p && see(p));
    for (const [a, b, side] of data.bones) if (seen[a] && seen[b]) bones.push([seen[a], seen[b], INK[side]]);
    const known = seen.filter((p) => p);
    if (data.tracks.length > 1 && known.length) {
      const top = known.reduce((a, b) => (a[1] < b[1] ? a : b));
      g.fillStyle = "#39444e";
      g.font = "600 14px system-ui, sans-serif";
      g.fillText(`#${data.tracks[person]}`, top[0] - 8, top[1] - 12);
    }
  });
  bones.sort((p, q) => q[0][2] + q[1][2] - p[0][2] - p[1][2]);
  for (const [p, q, colour] of bones) {
    const thick = 5 * 2 * distance / (p[2] + q[2]);
    for (const [tint, extra] of [["#fbfcfd", 2.5], [colour, 0]]) {
      g.strokeStyle = tint;
      g.lineWidth = thick + extra;
      g.beginPath();
      g.moveTo(p[0], p[1]);
      g.lineTo(q[0], q[1]);
      g.stroke();
    }
  }
}

document.querySelectorAll(".viewer").forEach(start);
