// What moves in a report: figures in the look of the page, the gallery, the recipes. All data is in REPORT (data.js);
// names from outside only ever become text, never HTML.
"use strict";

(() => {
  const SVG = document.querySelector("#gallery-kinds svg").namespaceURI;
  const byId = (id) => document.getElementById(id);
  const isNarrow = () => window.innerWidth < 700;

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function draw(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // The look: of the system, or chosen.
  // Okabe and Ito's colors, which color-blind readers tell apart, darker or lighter as the background asks, and two more.
  const LOOKS = {
    light: {
      color: ["#0072b2", "#d55e00", "#008f68", "#b3568c", "#b07a00", "#2a93cf", "#5b3fb5", "#8c2f1b"],
      neutral: ["#6b7280", "#1f2933", "#9c8b76"], text: "#1b1f24", grid: "#e3e7eb", card: "#ffffff",
    },
    dark: {
      color: ["#4aa8e0", "#f0803c", "#1fc49a", "#e08fc0", "#e6b422", "#9adcff", "#a893ff", "#d9776a"],
      neutral: ["#a8b0ba", "#e7eaee", "#bba98f"], text: "#e7eaee", grid: "#2c333c", card: "#191d23",
    },
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const look = () => LOOKS[document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")];

  function remembered(theme) {
    try { // a browser may forbid pages from the file system to remember anything
      if (theme === undefined) return localStorage.getItem("ssodkit-theme") || "";
      localStorage.setItem("ssodkit-theme", theme);
    } catch { /* then every page begins with the system's look */ }
    return theme || "";
  }

  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    byId("theme").textContent = `Theme: ${theme || "system"}`;
    remembered(theme);
  }

  // Figures.
  function template(colors) {
    const axis = {
      gridcolor: colors.grid, zerolinecolor: colors.grid, linecolor: colors.grid, showline: true, ticks: "outside",
      tickcolor: colors.grid,
    };
    return { layout: {
      font: { family: "system-ui, sans-serif", size: 13, color: colors.text }, xaxis: axis, yaxis: axis,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: colors.card, bordercolor: colors.grid, font: { color: colors.text }, namelength: -1 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colors.grid, activecolor: colors.text, orientation: "v" },
    } };
  }

  function colored(trace, colors) {
    const [kind, place] = trace.meta.color.split(" ");
    const color = colors[kind][place % colors[kind].length];
    return { ...trace, line: { ...trace.line, color }, marker: { ...trace.marker, color } };
  }

  const SIGNS = {
    circle: "●", "circle-open": "○", square: "■", diamond: "◆", "triangle-up": "▲", x: "✖", star: "★", cross: "✚",
  };
  const STROKES = { dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };

  // Of HTML, as it wraps on a phone and is reached by the keyboard.
  function legend(card, plot, traces) {
    const entries = traces.filter((trace) => trace.showlegend !== false);
    const list = card.querySelector(".legend");
    list.replaceChildren(...(entries.length < 2 ? [] : entries.map((entry) => {
      const color = entry.marker.color, swatch = draw("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" });
      if (entry.mode.includes("lines")) {
        const stroke = { stroke: color, "stroke-width": 2.5, "stroke-dasharray": STROKES[entry.line.dash] || "none" };
        swatch.append(draw("line", { x1: 0, x2: 30, y1: 7, y2: 7, ...stroke }));
      }
      if (entry.mode.includes("markers")) {
        const sign = SIGNS[entry.marker.symbol] || "●";
        swatch.append(draw("text", { x: 15, y: 12, "text-anchor": "middle", fill: color, "font-size": 14 }, sign));
      }
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch, entry.meta.title);
      button.addEventListener("click", () => {
        const isShown = button.getAttribute("aria-pressed") !== "true", group = entry.legendgroup ?? entry.name;
        button.setAttribute("aria-pressed", isShown);
        const own = [...traces.keys()].filter((place) => (traces[place].legendgroup ?? traces[place].name) === group);
        Plotly.restyle(plot, { visible: isShown }, own);
      });
      return make("li", {}, button);
    })));
  }

  function show(card) {
    const variants = REPORT.figures[card.dataset.figure], chooser = card.querySelector("select");
    const figure = variants[chooser ? Number(chooser.value) : 0], plot = card.querySelector(".plot"), colors = look();
    const traces = figure.data.map((trace) => colored(trace, colors));
    const layout = {
      ...figure.layout, template: template(colors), autosize: true, height: isNarrow() ? 290 : 350,
      dragmode: isNarrow() ? false : "zoom",
    };
    Plotly.react(plot, traces, layout, {
      responsive: true, displaylogo: false, displayModeBar: isNarrow() ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    });
    legend(card, plot, traces);
  }

  const cards = [...document.querySelectorAll("[data-figure]")];
  const showAll = () => cards.forEach(show);
  for (const card of cards) card.querySelector("select")?.addEventListener("change", () => show(card));

  const themes = ["", "light", "dark"];
  setTheme(themes.includes(remembered()) ? remembered() : "");
  byId("theme").addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme || "") + 1) % themes.length]);
    showAll();
  });
  dark.addEventListener("change", showAll);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) showAll();
    width = window.innerWidth;
  });
  showAll();

  // The gallery.
  const slider = byId("gallery-step"), least = byId("gallery-score"), large = byId("large");
  let enlarged = null;

  function boxesOf(moment, wanted, gallery) {
    const name = (label) => gallery.classes[label] ?? String(label), above = Number(least.value), found = [];
    const add = (kind, set, place, score, said) => {
      if (wanted.has(kind)) found.push({ kind, box: set.boxes[place], name: name(set.labels[place]), score, ...said });
    };
    moment.truth?.boxes.forEach((_, place) => add("truth", moment.truth, place, null, {}));
    moment.found?.boxes.forEach((_, place) => {
      const score = moment.found.scores.confidence[place], verdict = moment.found.verdict[place];
      const place_too = moment.found.places?.[place] ?? verdict === "taught";
      const split = place_too === (verdict === "taught") ? "" : place_too ? ", teaches its place" : ", class alone";
      const said = { verdict, split, iou: moment.found.iou?.[place], scores: Object.entries(moment.found.scores)
        .filter(([key, values]) => key !== "confidence" && values[place] !== null)
        .map(([key, values]) => `${key} ${values[place]}`).join(", ") };
      if (verdict === "taught") add("taught", moment.found, place, score, said);
      else if (score >= above) add("rejected", moment.found, place, score, said);
    });
    for (const network of ["teacher", "student"]) {
      const set = moment.detections[network];
      set?.boxes.forEach((_, place) => {
        if (set.scores[place] >= above) add(network, set, place, set.scores[place], {});
      });
    }
    return found;
  }

  const TITLES = { truth: "ground truth", taught: "accepted", rejected: "rejected", teacher: "teacher", student: "student" };
  const titled = (box) => [
    `${TITLES[box.kind]}${box.kind === "rejected" ? ` (${box.verdict})` : ""}${box.split ?? ""}: ${box.name}`,
    box.score === null ? "" : box.score.toFixed(2),
  ].join(" ").trim();

  const ORDER = ["truth", "rejected", "student", "teacher", "taught"]; // the last lies on top

  const CROWD = 12; // from so many boxes on, lines are thin and captions stand only where there is room

  function picture(image, boxes, named, lines) {
    const [height, wide] = image.size, svg = draw("svg", { viewBox: `0 0 ${wide} ${height}`, role: "img" });
    const crowded = boxes.length >= CROWD, size = Math.max(wide, height) / (crowded ? 1.5 * lines : lines);
    svg.setAttribute("aria-label", `image ${image.id} with ${boxes.length} boxes`);
    if (crowded) svg.setAttribute("class", "crowd");
    if (image.source) svg.append(draw("image", { href: image.source, width: wide, height, preserveAspectRatio: "none" }));
    const sorted = [...boxes].sort((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
    for (const box of sorted) {
      const [left, top, right, bottom] = box.box;
      const place = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
      svg.append(draw("g", { class: box.kind }, draw("title", {}, titled(box)),
        draw("rect", { ...place, class: "under" }), draw("rect", place)));
    }
    const taken = [];
    for (const box of named ? sorted.reverse() : []) {
      const caption = captionOf(box, size, crowded, height, taken);
      if (caption) svg.append(draw("g", { class: box.kind }, caption));
    }
    return svg;
  }

  // A box's name and score, or its score alone; nothing where it would cover another caption, or in a crowd leave its box.
  function captionOf(box, size, crowded, height, taken) {
    const [left, top, right, bottom] = box.box, score = box.score === null ? "" : box.score.toFixed(2).replace(/^0/, "");
    const y = box.kind !== "truth" ? Math.max(size, top - size / 4) : Math.min(height - 1, bottom - size / 4);
    for (const words of [`${box.name} ${score}`.trim(), score]) {
      const plate = [left, y - size, left + 0.58 * size * (words.length + 0.5), y + size / 4];
      const covers = taken.some((other) => plate[0] < other[2] && other[0] < plate[2] && plate[1] < other[3] && other[1] < plate[3]);
      if (!words || covers || (crowded && plate[2] > right + size / 2)) continue;
      taken.push(plate);
      return draw("text", { x: left + size / 6, y, "font-size": size }, words);
    }
    return null;
  }

  function summary(moment) {
    if (!moment) return "not looked at in this step";
    if (!moment.found) return "no pseudo-labels in this step";
    const counts = new Map();
    for (const verdict of moment.found.verdict) counts.set(verdict, (counts.get(verdict) || 0) + 1);
    const taught = counts.get("taught") || 0;
    counts.delete("taught");
    const reasons = [...counts].sort((one, other) => other[1] - one[1]).map(([reason, count]) => `${reason} ${count}`).join(", ");
    return `${taught} accepted${reasons ? `; rejected: ${reasons}` : ", none rejected"}`;
  }

  function table(boxes) {
    const columns = [
      ["box", (box) => (box.kind === "rejected" ? `rejected: ${box.verdict}` : TITLES[box.kind]) + (box.split ?? "")],
      ["class", (box) => box.name],
      ["score", (box) => box.score?.toFixed(3) ?? ""],
      ["IoU", (box) => box.iou?.toFixed(2) ?? ""],
      ["other scores", (box) => box.scores ?? ""],
    ].filter(([, cell]) => boxes.some(cell));
    const heads = columns.map(([name]) => make("th", { scope: "col" }, name));
    const rows = boxes.map((box) => make("tr", {}, ...columns.map(([, cell]) => make("td", {}, cell(box)))));
    return make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  }

  function showGallery() {
    const gallery = REPORT.galleries[Number(byId("gallery-run").value)], step = Number(slider.value);
    const wanted = new Set([...document.querySelectorAll("#gallery-kinds input:checked")].map((box) => box.value));
    byId("gallery-step-value").textContent = gallery.steps[step];
    slider.setAttribute("aria-valuetext", `step ${gallery.steps[step]}`);
    byId("gallery-score-value").textContent = Number(least.value).toFixed(2);
    const seen = gallery.images.map((image) => {
      const moment = image.moments[step], boxes = moment ? boxesOf(moment, wanted, gallery) : [];
      return { image, moment, boxes };
    });
    byId("tiles").classList.toggle("wide", seen.some(({ boxes }) => boxes.length >= CROWD));
    const focused = [...byId("tiles").children].indexOf(document.activeElement);
    byId("tiles").replaceChildren(...seen.map(({ image, moment, boxes }, place) => {
      const tile = make("button", { class: "tile", type: "button", "aria-label": `enlarge image ${image.id}` });
      tile.append(picture(image, boxes, wanted.has("labels"), 16), make("span", {}, `${image.id}: ${summary(moment)}`));
      tile.addEventListener("click", () => { enlarged = place; showGallery(); large.showModal(); });
      return tile;
    }));
    if (focused >= 0) byId("tiles").children[focused]?.focus();
    if (enlarged === null) return;
    const { image, boxes } = seen[enlarged];
    byId("large-title").textContent = `${gallery.name}, image ${image.id}, step ${gallery.steps[step]}`;
    const list = make("div", { class: "scroll", tabindex: "0" }, table(boxes));
    byId("large-body").replaceChildren(picture(image, boxes, wanted.has("labels"), 28), list);
  }

  function chooseGallery() {
    const gallery = REPORT.galleries[Number(byId("gallery-run").value)];
    slider.max = gallery.steps.length - 1;
    slider.value = slider.max;
    const isLabeled = gallery.images.some((image) => image.moments.some((moment) => moment?.found));
    if (!isLabeled) document.querySelector("#gallery-kinds [value=teacher]").checked = true; // else there is little to see
    showGallery();
  }

  if (REPORT.galleries.length) {
    byId("gallery-run").addEventListener("change", chooseGallery);
    byId("gallery-body").addEventListener("input", (event) => { if (event.target.tagName === "INPUT") showGallery(); });
    large.addEventListener("close", () => {
      const place = enlarged;
      enlarged = null;
      byId("tiles").children[place]?.focus();
    });
    document.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], where = byId("gallery").getBoundingClientRect();
      const isElsewhere = event.target.closest("input, select, .scroll, pre") || where.top > innerHeight || where.bottom < 0;
      if (by === undefined || event.altKey || event.ctrlKey || event.metaKey || isElsewhere) return;
      event.preventDefault();
      slider.value = Number(slider.value) + by;
      showGallery();
    });
    chooseGallery();
  } else byId("gallery-body").hidden = true;

  // Recipes.
  const breakable = (key) => key.split(/(?<=[._])/).flatMap((part) => [part, make("wbr")]);

  function showRecipes() {
    const chosen = ["recipe-a", "recipe-b"].map((id) => byId(id)), places = chosen.map((select) => Number(select.value));
    const names = chosen.map((select) => select.selectedOptions[0].textContent);
    const differing = REPORT.differences.filter((row) => row.values[places[0]] !== row.values[places[1]]);
    const rows = differing.map((row) => make("tr", {}, make("th", { scope: "row" }, ...breakable(row.key)),
      ...places.map((place) => make("td", {}, row.values[place] ?? "–"))));
    const heads = ["key", ...names].map((name) => make("th", { scope: "col" }, name));
    byId("difference").replaceChildren(rows.length
      ? make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows))
      : make("p", { class: "note" }, "The two recipes are the same."));
    byId("recipe-texts").replaceChildren(...[...new Set(places)].map((place) => make("article", { class: "card" },
      make("h3", {}, names[places.indexOf(place)]), make("pre", { tabindex: "0" }, REPORT.recipes[place]))));
  }
  for (const id of ["recipe-a", "recipe-b"]) byId(id).addEventListener("change", showRecipes);
  showRecipes();
})();
