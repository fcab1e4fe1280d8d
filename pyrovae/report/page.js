"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const { names, columns, value, digits, shape: [height, width], across, thumbnails, sprite } = data.table;
const labels = columns.label;
const PAGE = 25;
// Paul Tol's muted palette, told apart by colour-blind readers, and the same hues for the dark
const COLORS = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777"];
const LIGHTER = ["#9C8FF0", "#88CCEE", "#44AA99", "#5FBF7F", "#B5B54A", "#EEDD99", "#E58A97", "#D2608F", "#D48AD0", "#BBBBBB"];
// shapes for the classes: corners (0 of a circle), turn, and how far in the points between lie
const SHAPES = [[0], [4, 0.125], [3, 0], [4, 0], [3, 0.5], [4, 0, 0.35], [4, 0.125, 0.35], [3, 0.25], [5, 0, 0.4], [3, 0.75]];
const dark = matchMedia("(prefers-color-scheme: dark)");
let marked = null, markOn = () => {};

function make(name, text, parent) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function options(select, texts) {
  texts.forEach((text, i) => { make("option", text, select).value = i; });
}

const signed = (text) => text.replace("-", "\u2212");
const fixed = (v, n) => signed((Math.round(v * 10 ** n) / 10 ** n + 0).toFixed(n)); // no -0.00

function plain(value) {
  if (value === null) return "\u2013";
  return typeof value === "number" ? signed(String(value)) : value;
}

function shown(name, i) {
  const value = columns[name][i];
  return value !== null && name in digits ? fixed(value, digits[name]) : plain(value);
}

function told(i) {
  const label = labels ? `, label ${shown("label", i)}` : "";
  return `datum ${i}${label}: ${value} ${shown(value, i)}, ${shown("verdict", i)}`;
}

/* Thumbnails */
const pixel = Math.min(40 / height, 120 / width), tall = Math.max(pixel, 12 / height); // no thin strips
const down = Math.ceil(thumbnails / across);
make("style", undefined, document.head).textContent = `.thumb { width: ${width * pixel}px; height: ${height * tall}px; background-image: url(${sprite}); background-size: ${across * width * pixel}px ${down * height * tall}px; }`;

function thumb(i, parent) {
  if (i >= thumbnails) return;
  const image = make("span", undefined, parent);
  image.className = "thumb";
  image.role = "img";
  image.ariaLabel = told(i);
  image.style.backgroundPosition = `${-(i % across) * width * pixel}px ${-Math.floor(i / across) * height * tall}px`;
}

/* The latent plane */
if (data.explorer) {
  const { planes, drawn, shape: [high, wide] } = data.explorer;
  const canvas = element("latent"), context = canvas.getContext("2d");
  const decoded = element("decoded"), picture = decoded.getContext("2d");
  const select = element("plane"), MARGIN = 34, NEAR = 9;
  const classes = [...new Set(labels)].sort((a, b) => (a < b ? -1 : 1));
  const few = classes.length <= COLORS.length * SHAPES.length;
  const sprites = planes.map((plane) => {
    const image = new Image();
    image.addEventListener("load", draw);
    if (plane.sprite) image.src = plane.sprite;
    return image;
  });
  let at = [0.5, 0.5]; // shares of the plane, rightwards and downwards
  decoded.width = wide;
  decoded.height = high;
  if (Math.max(high / wide, wide / high) > 4) decoded.style.objectFit = "fill";
  options(select, planes.map((plane) => plane.title));

  function point(on, label, x, y, size) {
    const c = few && labels ? classes.indexOf(label) : 0;
    const [corners, turn = 0, inner] = SHAPES[(c + Math.floor(c / COLORS.length)) % SHAPES.length];
    on.beginPath();
    if (!corners) on.arc(x, y, 0.8 * size, 0, 7);
    const steps = inner ? 2 * corners : corners;
    for (let k = 0; k < steps; k += 1) {
      const angle = 2 * Math.PI * (k / steps + turn), r = inner && k % 2 ? inner * size : size;
      on.lineTo(x + r * Math.sin(angle), y - r * Math.cos(angle));
    }
    on.closePath();
    on.fillStyle = (dark.matches ? LIGHTER : COLORS)[c % COLORS.length];
    on.fill();
    on.lineWidth = 0.7;
    on.stroke();
  }

  const legend = !labels || !few ? [] : classes.map((label) => {
    const item = make("li", undefined, element("legend")), mark = make("canvas", undefined, item);
    mark.width = mark.height = 28;
    item.append(signed(String(label)));
    return [label, mark.getContext("2d")];
  });

  function draw() {
    const plane = planes[select.value], { size, low, high: top } = plane;
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), mark = style.getPropertyValue("--mark");
    const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio;
    canvas.width = box.width * ratio;
    canvas.height = box.height * ratio;
    context.scale(ratio, ratio);
    const place = ([right, below]) => [
      MARGIN + right * (box.width - 2 * MARGIN), MARGIN + below * (box.height - 2 * MARGIN),
    ];
    const share = (i) => [0, 1].map((k) => {
      const s = (plane.points[i][k] - low[k]) / (top[k] - low[k]);
      return k ? 1 - s : s;
    });
    const tile = at.map((s) => Math.round(s * (size - 1))), grid = tile.map((t) => t / (size - 1));
    const pointer = place(at), here = place(grid);
    let under = null, nearest = NEAR;
    context.strokeStyle = ink;
    for (let i = 0; i < plane.points.length; i += 1) {
      if (i >= drawn && i !== marked) continue;
      const [x, y] = place(share(i)), far = Math.hypot(x - pointer[0], y - pointer[1]);
      point(context, labels && labels[i], x, y, 5);
      if (far < nearest || (i === marked && far < 0.5)) [under, nearest] = [i, far];
    }
    context.font = "15px system-ui, sans-serif";
    context.fillStyle = ink;
    context.textAlign = "center";
    context.fillText(plane.names[0], box.width / 2, box.height - 10);
    context.save();
    context.translate(20, box.height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(plane.names[1], 0, 0);
    context.restore();
    context.strokeStyle = mark;
    context.lineWidth = 2.5;
    context.strokeRect(here[0] - 8, here[1] - 8, 16, 16);
    if (marked !== null) {
      const [x, y] = place(share(marked)), left = x > box.width / 2;
      context.beginPath();
      context.arc(x, y, 12, 0, 7);
      context.stroke();
      context.font = "bold 15px system-ui, sans-serif";
      context.textAlign = left ? "right" : "left";
      context.lineWidth = 4;
      context.strokeStyle = style.getPropertyValue("--paper");
      const words = [`datum ${marked}`, x + (left ? -17 : 17), y + 5];
      context.strokeText(...words);
      context.fillText(...words);
    }
    for (const [label, on] of legend) {
      on.clearRect(0, 0, 28, 28);
      on.strokeStyle = ink;
      point(on, label, 14, 14, 11);
    }
    if (plane.sprite) {
      picture.clearRect(0, 0, wide, high);
      picture.drawImage(sprites[select.value], tile[0] * wide, tile[1] * high, wide, high, 0, 0, wide, high);
    } else {
      const values = plane.values[tile[1] * size + tile[0]];
      document.querySelectorAll("#values td").forEach((cell, k) => { cell.textContent = plain(values[k]); });
    }
    const value = (k, s) => fixed(low[k] + s * (top[k] - low[k]), 2);
    const spot = ([right, below]) => value(0, right) + (plane.names[1] && `, ${value(1, 1 - below)}`);
    decoded.ariaLabel = `E[X|z] at ${spot(grid)}`;
    element("where").textContent = `E[X|z] at ${spot(grid)}`;
    say("under", under, under === null ? "" : `Here lies ${told(under)}`);
    say("marked", marked, marked === null ? "" : `Marked at ${spot(share(marked))}: ${told(marked)}`);
    element("held").textContent = plane.held;
    return share;
  }

  function say(id, i, text) {
    const line = element(id);
    if (line.textContent === text) return; // to be read out once
    line.replaceChildren();
    if (text) thumb(i, line);
    make("span", text, line);
  }

  const within = (share) => Math.min(1, Math.max(0, share));

  function follow(event) {
    const box = canvas.getBoundingClientRect();
    at = [
      within((event.clientX - box.left - MARGIN) / (box.width - 2 * MARGIN)),
      within((event.clientY - box.top - MARGIN) / (box.height - 2 * MARGIN)),
    ];
    draw();
  }

  markOn = () => {
    at = draw()(marked);
    draw();
    canvas.scrollIntoView({ block: "nearest" });
  };
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerdown", follow);
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key], last = planes[select.value].size - 1;
    if (!move) return;
    event.preventDefault();
    at = at.map((s, k) => within((Math.round(s * last) + move[k]) / last));
    draw();
  });
  select.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();
}

/* The table of data */
{
  const verdicts = [...new Set(columns.verdict)];
  const head = document.querySelector("#data-table thead tr");
  const body = document.querySelector("#data-table tbody");
  const select = element("verdict");
  let sorted = value, rising = true, page = 0, rows = [];
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

  function row(i) {
    const line = document.createElement("tr");
    line.ariaCurrent = i === marked ? "true" : null;
    if (thumbnails) thumb(i, make("td", undefined, line));
    for (const name of names) {
      const cell = make("td", undefined, line);
      if (name !== "datum" || !data.explorer) {
        cell.textContent = shown(name, i);
        continue;
      }
      const button = make("button", shown(name, i), cell);
      button.type = "button";
      button.ariaLabel = `${i}, mark it in the latent space`;
    }
    if (data.explorer) line.addEventListener("click", () => {
      marked = i;
      for (const other of body.children) other.ariaCurrent = other === line ? "true" : null;
      markOn();
    });
    return line;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    page = Math.min(pages - 1, Math.max(0, page));
    body.replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map(row));
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
