"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
// Paul Tol's muted palette: told apart by colour-blind readers
const COLORS = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777"];
const PAGE = 25;

function make(name, text, parent) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function options(select, texts) {
  texts.forEach((text, i) => { make("option", text, select).value = i; });
}

/* The latent plane */
if (data.explorer) {
  const { planes, labels, shape: [height, width] } = data.explorer;
  const canvas = element("latent"), context = canvas.getContext("2d");
  const decoded = element("decoded"), picture = decoded.getContext("2d");
  const select = element("plane"), margin = 34;
  const classes = labels ? [...new Set(labels)].sort((a, b) => (a < b ? -1 : 1)) : [];
  const color = (label) => COLORS[Math.max(0, classes.indexOf(label)) % COLORS.length];
  const sprites = planes.map((plane) => {
    const image = new Image();
    image.addEventListener("load", draw);
    image.src = plane.sprite;
    return image;
  });
  let column = Math.floor(planes[0].size / 2), row = column;
  decoded.width = width;
  decoded.height = height;
  options(select, planes.map((plane) => plane.title));
  if (classes.length <= COLORS.length) {
    for (const label of classes) {
      const item = make("li", undefined, element("legend"));
      make("i", undefined, item).style.background = color(label);
      item.append(String(label));
    }
  }

  function draw() {
    const plane = planes[select.value], { size, low, high } = plane;
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), mark = style.getPropertyValue("--mark");
    const inner = [canvas.width - 2 * margin, canvas.height - 2 * margin];
    const place = (x, y) => [
      margin + (x - low[0]) / (high[0] - low[0]) * inner[0],
      canvas.height - margin - (y - low[1]) / (high[1] - low[1]) * inner[1],
    ];
    context.clearRect(0, 0, canvas.width, canvas.height);
    plane.points.forEach(([x, y], i) => {
      context.fillStyle = labels ? color(labels[i]) : COLORS[2];
      context.beginPath();
      context.arc(...place(x, y), 3.5, 0, 7);
      context.fill();
      context.strokeStyle = ink;
      context.lineWidth = 0.6;
      context.stroke();
    });
    const x = low[0] + column / (size - 1) * (high[0] - low[0]);
    const y = high[1] - row / (size - 1) * (high[1] - low[1]);
    const [left, top] = place(x, y);
    context.strokeStyle = mark;
    context.lineWidth = 2.5;
    context.strokeRect(left - 8, top - 8, 16, 16);
    context.fillStyle = ink;
    context.font = "15px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(plane.names[0], canvas.width / 2, canvas.height - 8);
    context.save();
    context.translate(18, canvas.height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(plane.names[1], 0, 0);
    context.restore();
    picture.clearRect(0, 0, width, height);
    picture.drawImage(sprites[select.value], column * width, row * height, width, height, 0, 0, width, height);
    const digits = (v) => (Math.round(100 * v) / 100 + 0).toFixed(2); // no -0.00
    element("where").textContent = `at ${digits(x)}, ${digits(y)}`;
  }

  function follow(event) {
    const size = planes[select.value].size, box = canvas.getBoundingClientRect();
    const step = (offset, length, whole) => {
      const edge = margin * length / whole;
      return Math.min(size - 1, Math.max(0, Math.round((offset - edge) / (length - 2 * edge) * (size - 1))));
    };
    column = step(event.clientX - box.left, box.width, canvas.width);
    row = step(event.clientY - box.top, box.height, canvas.height);
    draw();
  }

  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerdown", follow);
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const last = planes[select.value].size - 1;
    column = Math.min(last, Math.max(0, column + move[0]));
    row = Math.min(last, Math.max(0, row + move[1]));
    draw();
  });
  select.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

/* The table of data */
{
  const { names, columns, digits, shape: [height, width], across, thumbnails, sprite } = data.table;
  const verdicts = [...new Set(columns.verdict)];
  const head = document.querySelector("#data-table thead tr");
  const body = document.querySelector("#data-table tbody");
  const select = element("verdict");
  const scale = Math.min(40 / height, 120 / width), down = Math.ceil(thumbnails / across);
  let sorted = "log p(x)", rising = true, page = 0, rows = [];
  const sheet = make("style", undefined, document.head);
  sheet.textContent = `.thumb { width: ${width * scale}px; height: ${height * scale}px; background-image: url(${sprite}); background-size: ${across * width * scale}px ${down * height * scale}px; }`;
  options(select, ["all", ...verdicts.map((v) => `${v} (${columns.verdict.filter((w) => w === v).length})`)]);
  if (thumbnails) make("th", "X", head).scope = "col";
  for (const name of names) {
    const cell = make("th", undefined, head);
    cell.scope = "col";
    make("button", name, cell).type = "button";
    cell.firstChild.addEventListener("click", () => {
      rising = sorted === name ? !rising : true;
      sorted = name;
      page = 0;
      order();
    });
  }

  function order() {
    const wanted = verdicts[select.value - 1], values = columns[sorted];
    rows = columns.datum.filter((i) => wanted === undefined || columns.verdict[i] === wanted);
    rows.sort((i, j) => {
      const [a, b] = [values[i], values[j]];
      if (a === b) return i - j;
      if (a === null || b === null) return a === null ? 1 : -1; // what is undefined stands last
      return (a < b) === rising ? -1 : 1;
    });
    [...head.children].slice(-names.length).forEach((cell, i) => {
      if (names[i] === sorted) cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    page = Math.min(pages - 1, Math.max(0, page));
    body.replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map((i) => {
      const line = document.createElement("tr"), cell = thumbnails && make("td", undefined, line);
      if (i < thumbnails) {
        const thumb = make("span", undefined, cell);
        thumb.className = "thumb";
        thumb.style.backgroundPosition = `${-(i % across) * width * scale}px ${-Math.floor(i / across) * height * scale}px`;
      }
      for (const name of names) {
        const value = columns[name][i];
        make("td", value === null ? "\u2013" : name in digits ? value.toFixed(digits[name]) : value, line);
      }
      return line;
    }));
    element("count").textContent = `${rows.length} of ${columns.datum.length} data`;
    element("page").textContent = `page ${page + 1} of ${pages}`;
    element("previous").disabled = page === 0;
    element("next").disabled = page === pages - 1;
  }

  select.addEventListener("change", () => { page = 0; order(); });
  element("previous").addEventListener("click", () => { page -= 1; show(); });
  element("next").addEventListener("click", () => { page += 1; show(); });
  order();
}
