"use strict";
// The viewer. Axes are 0, 1, 2 for x (to the left of the patient), y (to the back), z (to the feet); positions along
// them are stored pixels and slices, lengths are millimetres from the scan's corner. Slices are JPEGs whose grey values
// are codes for HU; those around the finding are decoded into one small array that every plane is cut from.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0], whole: [0, 1, 2] }; // across, down, through
  const BARS_MM = [200, 100, 50, 20, 10, 5];
  const MOST_NUMBERS = 10; // of boxes in one picture
  const SVG = document.querySelector("svg").namespaceURI;
  const byId = (id) => document.getElementById(id);
  const state = { finding: 0, at: [0, 0, 0], low: -160, high: 240, preset: 0, boxes: true, others: true, diameters: true, lines: false };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const middle = (axis, index) => data.origin[axis] + (index + 0.5) * data.step[axis];

  // ------------------------------------------------------------------ slices and the array around a finding
  const decoded = new Map(); // slice -> promise of its codes; the latest few
  const cubes = new Map(); // finding -> its array; the latest few

  function keep(map, key, value, most) {
    map.delete(key);
    map.set(key, value);
    if (map.size > most) map.delete(map.keys().next().value);
    return value;
  }

  function codesOf(z) {
    return keep(decoded, z, decoded.get(z) || decode(z), 64);
  }

  const scratch = document.createElement("canvas");
  [scratch.width, scratch.height] = data.size;
  const reader = scratch.getContext("2d", { willReadFrequently: true });

  async function decode(z) {
    const image = new Image();
    image.src = "data:image/jpeg;base64," + byId("z" + z).textContent;
    await image.decode();
    reader.drawImage(image, 0, 0);
    const rgba = reader.getImageData(0, 0, scratch.width, scratch.height).data;
    const codes = new Uint8Array(rgba.length / 4);
    for (let i = 0; i < codes.length; i++) codes[i] = rgba[4 * i];
    return codes;
  }

  // low and high: first and last (exclusive) stored pixel or slice of what is shown around a finding.
  function emptyCube(index) {
    const low = [], high = [];
    data.findings[index].near.forEach(([first, end], axis) => {
      const pixel = (voxel) => (voxel * data.axes[axis].mm - data.origin[axis]) / data.step[axis];
      low.push(clamp(Math.floor(pixel(first) + 1e-3), 0, data.size[axis] - 1));
      high.push(clamp(Math.ceil(pixel(end) - 1e-3), low[axis] + 1, data.size[axis]));
    });
    const size = low.map((value, axis) => high[axis] - value);
    return { low, high, size, codes: new Uint8Array(size[0] * size[1] * size[2]), have: new Set() };
  }

  async function fill(index, cube) {
    const key = data.findings[index].key;
    const order = [];
    for (let z = cube.low[2]; z < cube.high[2]; z++) if (!cube.have.has(z)) order.push(z);
    order.sort((a, b) => Math.abs(a - key) - Math.abs(b - key));
    const [width, height] = cube.size;
    let drawn = 0;
    for (const [done, z] of order.entries()) {
      const [codes] = order.slice(done, done + 4).map(codesOf); // some ahead, as they are decoded aside
      const slice = await codes;
      for (let y = 0; y < height; y++) {
        const from = (cube.low[1] + y) * data.size[0] + cube.low[0];
        cube.codes.set(slice.subarray(from, from + width), ((z - cube.low[2]) * height + y) * width);
      }
      cube.have.add(z);
      if (state.finding !== index) return; // another was chosen; the rest follows when this one is chosen again
      if (z !== state.at[2] && done + 1 < order.length && performance.now() - drawn < 150) continue;
      drawn = performance.now();
      refresh();
    }
  }

  // ------------------------------------------------------------------ windows
  const huOf = Array.from({ length: 256 }, (_, code) => {
    const upper = Math.max(1, data.knots.findIndex(([end]) => end >= code));
    const [[c1, h1], [c2, h2]] = [data.knots[upper - 1], data.knots[upper]];
    return h1 + ((code - c1) * (h2 - h1)) / (c2 - c1);
  });

  function greys() { // what each code looks like, as one RGBA number (equal bytes, so that their order does not matter)
    return Uint32Array.from(huOf, (hu) => {
      const grey = Math.round(clamp((hu - state.low) / (state.high - state.low), 0, 1) * 255);
      return (0xff000000 | (grey * 0x010101)) >>> 0;
    });
  }

  function setWindow(low, high, preset = -1) {
    Object.assign(state, { low, high, preset });
    for (const button of document.querySelectorAll("[data-window]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.window) === preset));
    }
    byId("window-text").textContent = `${Math.round(low)} to ${Math.round(high)} HU`;
    refresh();
  }

  const choosePreset = (index) => setWindow(data.windows[index][1], data.windows[index][2], index);

  // ------------------------------------------------------------------ drawing
  let asked = false;
  function refresh() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      panels.forEach(drawPanel);
    });
  }

  function paint(panel, width, height, codeAt) {
    const canvas = panel.canvas;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer), grey = greys();
    for (let v = 0, i = 0; v < height; v++) for (let h = 0; h < width; h++) pixels[i++] = grey[codeAt(h, v)];
    context.putImageData(picture, 0, 0);
  }

  function drawPanel(panel) {
    const cube = cubes.get(state.finding);
    const [h, v, n] = panel.axes, whole = panel.name === "whole";
    const low = whole ? [0, 0, 0] : cube.low, high = whole ? data.size : cube.high;
    const width = high[h] - low[h], height = high[v] - low[v];
    panel.view = [h, v].flatMap((axis) => [data.origin[axis] + low[axis] * data.step[axis], (high[axis] - low[axis]) * data.step[axis]]);
    panel.stage.style.aspectRatio = `${panel.view[1]} / ${panel.view[3]}`;
    const at = state.at[n];
    if (whole) {
      const picture = [at, state.low, state.high].join();
      if (panel.picture !== picture) codesOf(at).then((codes) => {
        if (state.at[n] !== at) return;
        paint(panel, width, height, (x, y) => codes[y * width + x]);
        panel.picture = picture;
      });
    } else {
      const stride = [1, cube.size[0], cube.size[0] * cube.size[1]];
      const start = (at - cube.low[n]) * stride[n];
      paint(panel, width, height, (x, y) => cube.codes[start + x * stride[h] + y * stride[v]]);
      panel.stage.classList.toggle("loading", n === 2 ? !cube.have.has(at) : cube.have.size < cube.size[2]);
      Object.assign(panel.slider, { min: cube.low[n], max: cube.high[n] - 1 });
      panel.slider.value = at;
    }
    const text = where(n, at);
    panel.where.textContent = text;
    if (panel.slider) panel.slider.setAttribute("aria-valuetext", text);
    panel.canvas.setAttribute("aria-label", `${panel.title} slice, ${text}, finding ${state.finding + 1}`);
    drawOver(panel);
  }

  function where(axis, at) {
    const { name, flip, size, mm } = data.axes[axis], finding = data.findings[state.finding];
    const voxel = clamp(Math.floor(middle(axis, at) / mm), 0, size - 1);
    const index = `${name} = ${flip ? size - 1 - voxel : voxel}`;
    if (axis === 2 && at === finding.key) return index + ", key slice";
    return index + (cuts(finding, axis, at) ? ", in the finding" : "");
  }

  const cuts = (finding, axis, at) => finding.box[axis] <= middle(axis, at) && middle(axis, at) < finding.box[axis + 3];

  function add(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }

  function drawOver(panel) {
    const [left, width, top, height] = panel.view, [h, v, n] = panel.axes, svg = panel.over;
    const font = Math.min((14 * width) / (panel.stage.clientWidth || 400), height * 0.12); // 14 px on the screen
    svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    svg.setAttribute("font-size", font);
    svg.replaceChildren();
    const finding = data.findings[state.finding], key = n === 2 && state.at[2] === finding.key;
    if (state.lines) {
      const x = middle(h, state.at[h]), y = middle(v, state.at[v]);
      add(svg, "path", { class: "cut", d: `M${x} ${top}v${height}M${left} ${y}h${width}` });
    }
    if (state.boxes) drawBoxes(panel, font, key);
    if (key && state.diameters) {
      for (const [x1, y1, x2, y2] of finding.lines) add(svg, "line", { class: "diameter", x1, y1, x2, y2 });
    }
    const letters = data.letters[panel.name === "whole" ? "axial" : panel.name], group = add(svg, "g", { class: "letter" });
    add(group, "text", { x: left + font * 0.9, y: top + height / 2 + font * 0.35 }, letters[0]);
    add(group, "text", { x: left + width - font * 0.9, y: top + height / 2 + font * 0.35 }, letters[1]);
    add(group, "text", { x: left + width / 2, y: top + font * 1.1 }, letters[2]);
    add(group, "text", { x: left + width / 2, y: top + height - font * 0.5 }, letters[3]);
    const bar = BARS_MM.find((mm) => mm <= width / 3) || 1, scale = add(svg, "g", { class: "scale", "font-size": font * 0.8 });
    add(scale, "path", { d: `M${left + font * 0.7} ${top + height - font * 0.7}h${bar}` });
    add(scale, "text", { x: left + font * 0.7, y: top + height - font * 1.1 }, `${bar} mm`);
  }

  function drawBoxes(panel, font, key) {
    const [left, width, top, height] = panel.view, [h, v, n] = panel.axes;
    const taken = [[left, top + height / 2 - font, 2 * font, 2 * font], [left + width - 2 * font, top + height / 2 - font, 2 * font, 2 * font],
      [left + width / 2 - font, top, 2 * font, 1.5 * font], [left + width / 2 - font, top + height - 1.5 * font, 2 * font, 1.5 * font],
      [left, top + height - 2.2 * font, Math.max(width / 3, 4 * font), 2.2 * font]]; // letters and scale bar
    const free = (x, y, wide) => x >= left && y >= top && x + wide <= left + width && y + font <= top + height
      && !taken.some((other) => x < other[0] + other[2] && other[0] < x + wide && y < other[1] + other[3] && other[1] < y + font);
    const shown = state.others ? data.findings.map((_, index) => index).filter((index) => index !== state.finding) : [];
    shown.unshift(state.finding); // its number is placed first, and its box is drawn last, on top
    let numbers = MOST_NUMBERS;
    for (const index of shown) {
      const { box, keyBox } = data.findings[index], main = index === state.finding;
      if (!(main && key) && !cuts(data.findings[index], n, state.at[n])) continue;
      const [x1, y1, x2, y2] = main && key ? keyBox : [box[h], box[v], box[h + 3], box[v + 3]];
      if (x2 <= left || y2 <= top || x1 >= left + width || y1 >= top + height) continue;
      const mark = add(panel.over, "g", { class: main ? "mark" : "mark other" });
      panel.over.prepend(mark);
      add(mark, "rect", { class: "box", x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
      const text = String(index + 1), wide = font * (0.62 * text.length + 0.5), above = y1 - font * 1.15, below = y2 + font * 0.15;
      const place = [[x1, above], [x1, below], [x2 - wide, above], [x2 - wide, below]].find(([x, y]) => free(x, y, wide));
      if (!place || numbers-- <= 0) continue;
      taken.push([...place, wide, font]);
      add(mark, "text", { x: place[0] + font * 0.25, y: place[1] + font * 0.9 }, text);
    }
  }

  // ------------------------------------------------------------------ what can be done
  const rows = Array.from(document.querySelectorAll("#findings tbody tr"));

  function select(index, jump = true) {
    const finding = data.findings[index], cube = cubes.get(index) || emptyCube(index);
    keep(cubes, index, cube, 6);
    state.finding = index;
    goToKey();
    choosePreset(finding.window);
    const row = rows.find((item) => Number(item.dataset.rank) === index + 1);
    byId("viewer-title").textContent = `Finding ${index + 1} of ${data.findings.length}`;
    byId("viewer-facts").textContent = row.dataset.facts.split(" · ").join("\n");
    for (const item of document.querySelectorAll(".chosen")) item.classList.remove("chosen");
    for (const item of [row, ...document.querySelectorAll(`#overview [data-rank="${index + 1}"]`)]) item.classList.add("chosen");
    const area = row.closest(".scroll"), above = row.offsetTop - area.querySelector("thead").offsetHeight;
    if (above < area.scrollTop) area.scrollTop = above;
    else if (row.offsetTop + row.offsetHeight > area.scrollTop + area.clientHeight) area.scrollTop = above - area.clientHeight / 2;
    if (jump) {
      byId("viewer").scrollIntoView({ block: "start" });
      panels[0].slider.focus({ preventScroll: true });
    }
    fill(index, cube);
  }

  function goToKey() {
    const { key, keyBox } = data.findings[state.finding], cube = cubes.get(state.finding);
    const place = (axis) => Math.floor(((keyBox[axis] + keyBox[axis + 2]) / 2 - data.origin[axis]) / data.step[axis]);
    state.at = [place(0), place(1), key].map((value, axis) => clamp(value, cube.low[axis], cube.high[axis] - 1));
    refresh();
  }

  function neighbour(step) { // in the order of the table
    const ranks = Array.from(document.querySelectorAll("#findings tbody tr"), (row) => Number(row.dataset.rank) - 1);
    const place = ranks.indexOf(state.finding) + step;
    if (place >= 0 && place < ranks.length) select(ranks[place]);
  }

  function move(axis, to) {
    const cube = cubes.get(state.finding);
    state.at[axis] = clamp(to, cube.low[axis], cube.high[axis] - 1);
    refresh();
  }

  function toggle(name) {
    if (!byId(name) || byId(name).disabled) return;
    state[name] = !state[name];
    byId(name).setAttribute("aria-pressed", String(state[name]));
    const others = byId("others"); // which are boxes, too
    others.disabled = !state.boxes;
    others.setAttribute("aria-pressed", String(state.boxes && state.others));
    refresh();
  }

  function pointer(panel) {
    const { stage } = panel, [h, v, n] = panel.axes;
    let start = null, wheel = 0;
    stage.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // that is the browser's zoom
      event.preventDefault();
      wheel += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      if (Math.abs(wheel) < 30) return; // touchpads send many small steps
      move(n, state.at[n] + Math.sign(wheel));
      wheel = 0;
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = { x: event.clientX, y: event.clientY, low: state.low, high: state.high, at: state.at[n], moved: false };
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!start) return;
      const dx = event.clientX - start.x, dy = event.clientY - start.y;
      if (Math.hypot(dx, dy) > 5) start.moved = true;
      if (!start.moved) return;
      if (event.pointerType === "touch") move(n, start.at + Math.round(dx / 9));
      else {
        const width = Math.max(10, start.high - start.low + 2 * dx), centre = (start.low + start.high) / 2 - dy;
        setWindow(centre - width / 2, centre + width / 2);
      }
    });
    stage.addEventListener("pointerup", (event) => {
      if (start && !start.moved) {
        const area = stage.getBoundingClientRect(), [left, width, top, height] = panel.view;
        const x = left + ((event.clientX - area.left) / area.width) * width, y = top + ((event.clientY - area.top) / area.height) * height;
        move(h, Math.floor((x - data.origin[h]) / data.step[h]));
        move(v, Math.floor((y - data.origin[v]) / data.step[v]));
        (panel.slider || panels[0].slider).focus({ preventScroll: true });
      }
      start = null;
    });
    stage.addEventListener("pointercancel", () => { start = null; });
    if (!panel.slider) return;
    panel.slider.addEventListener("input", () => move(n, Number(panel.slider.value)));
    panel.slider.addEventListener("keydown", (event) => { // up is towards the head, as on every viewer; sliders have it the other way
      const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -5, PageDown: 5 }[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(n, state.at[n] + step);
    });
  }

  const panels = Array.from(document.querySelectorAll(".panel"), (figure) => ({
    name: figure.dataset.plane,
    title: figure.querySelector("b").textContent,
    axes: PLANES[figure.dataset.plane],
    stage: figure.querySelector(".stage"),
    canvas: figure.querySelector("canvas"),
    over: figure.querySelector("svg"),
    where: figure.querySelector(".where"),
    slider: figure.querySelector("input"),
  }));

  function keys(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open || !byId("shortcuts").checked) return;
    const actions = { n: () => neighbour(1), p: () => neighbour(-1), b: () => toggle("boxes"), o: () => toggle("others"), d: () => toggle("diameters"),
      c: () => toggle("lines"), 0: goToKey, "?": () => byId("help").showModal() };
    if (data.windows[Number(event.key) - 1]) choosePreset(Number(event.key) - 1);
    else if (Object.hasOwn(actions, event.key)) actions[event.key]();
    else return;
    event.preventDefault();
  }

  function sortable(head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && column > 0 && rows[0].cells[column].hasAttribute("data-value"));
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column], number = cell.dataset.value;
        return number === undefined ? cell.textContent : number === "" ? NaN : Number(number);
      };
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
      const missing = (row) => Number.isNaN(value(row)) || value(row) === "";
      const sorted = [...rows].sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : compare(value(a), value(b)) * (down ? -1 : 1)));
      rows[0].parentNode.append(...sorted);
    });
  }

  function start() {
    document.documentElement.classList.add("js");
    byId("viewer").hidden = false;
    document.querySelectorAll("#findings thead th").forEach((head, column) => {
      if (head.hasAttribute("data-sort")) sortable(head, column);
    });
    for (const row of rows) {
      const cell = row.cells[0];
      if (!cell.querySelector("a")) { // one without a picture of its own
        const link = document.createElement("a");
        link.href = "#viewer";
        link.textContent = cell.textContent;
        cell.replaceChildren(link);
      }
      row.addEventListener("click", (event) => {
        event.preventDefault();
        select(Number(row.dataset.rank) - 1);
      });
    }
    for (const mark of document.querySelectorAll("#overview .mark, .finding .mark")) {
      mark.addEventListener("click", () => select(Number(mark.dataset.rank) - 1));
    }
    panels.forEach(pointer);
    for (const name of ["boxes", "others", "diameters", "lines"]) byId(name)?.addEventListener("click", () => toggle(name));
    for (const button of document.querySelectorAll("[data-window]")) {
      button.addEventListener("click", () => choosePreset(Number(button.dataset.window)));
    }
    byId("previous").addEventListener("click", () => neighbour(-1));
    byId("next").addEventListener("click", () => neighbour(1));
    byId("key-slice").addEventListener("click", goToKey);
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    byId("help-close").addEventListener("click", () => byId("help").close());
    document.addEventListener("keydown", keys);
    window.addEventListener("resize", refresh);
    const wanted = Number((location.hash.match(/^#finding-(\d+)$/) || [])[1]);
    select(wanted >= 1 && wanted <= data.findings.length ? wanted - 1 : 0, Boolean(wanted));
  }

  start();
})();
