// The page of `ssodkit review`. REVIEW, from data.js, is all it knows; names only ever become text, never HTML.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const colorOf = (label) => `hsl(${(29 + label * 222.5) % 360} 100% 60%)`; // a golden section apart

  // What was ticked: `picture id/box` -> "wrong" or "fine", and the ids of pictures that are done. Kept by the browser.
  const KEY = `ssodkit review ${REVIEW.key}`;
  const stored = JSON.parse(localStorage.getItem(KEY) || "null") || { ticks: {}, done: [] };
  const ticks = stored.ticks, done = new Set(stored.done);
  const remember = () => localStorage.setItem(KEY, JSON.stringify({ ticks, done: [...done] }));
  const tickOf = (picture, box) => ticks[`${picture.id}/${box}`];

  const least = byId("least"), shownClasses = new Set(REVIEW.categories.keys());
  let pictures = REVIEW.pictures, at = 0, chosen = -1;

  const isKept = (picture, box) =>
    tickOf(picture, box) === "fine" || (tickOf(picture, box) !== "wrong" && picture.scores[box] > Number(least.value));
  const isShown = (picture, box) =>
    shownClasses.has(picture.labels[box]) && (picture.scores[box] > Number(least.value) || tickOf(picture, box) !== undefined);
  const shownBoxes = (picture) => [...picture.scores.keys()].filter((box) => isShown(picture, box));

  function answer() {
    const chosenPictures = REVIEW.pictures.filter((picture) => !byId("only-done").checked || done.has(picture.id));
    const ordered = [...chosenPictures].sort((one, other) => one.id - other.id);
    const annotations = ordered.flatMap((picture) => picture.boxes.flatMap(([left, top, right, bottom], box) => {
      if (!isKept(picture, box)) return [];
      const [wide, high] = [right - left, bottom - top];
      return [{ image_id: picture.id, category_id: REVIEW.categories[picture.labels[box]].id, bbox: [left, top, wide, high],
        area: wide * high, iscrowd: 0, score: picture.scores[box] }];
    }));
    return {
      info: { description: "reviewed detections of ssodkit", ...REVIEW.about },
      categories: REVIEW.categories,
      images: ordered.map(({ id, name, size: [width, height] }) => ({ id, file_name: name, width, height })),
      annotations: annotations.map((annotation, place) => ({ id: place + 1, ...annotation })),
    };
  }

  function tick(box, state) {
    const picture = pictures[at], key = `${picture.id}/${box}`;
    if (box < 0) return;
    if (state === undefined || ticks[key] === state) delete ticks[key];
    else ticks[key] = state;
    remember();
    showPicture();
  }

  function showCounts() {
    byId("least-value").textContent = Number(least.value).toFixed(2);
    const { images, annotations } = answer();
    byId("kept").textContent = `${annotations.length} boxes kept in ${images.length} pictures; ${done.size} of ${REVIEW.pictures.length} done`;
  }

  // Captions stand where they cover no other one and are no wider than their box; that of the chosen box always.
  function captions(picture, boxes, size) {
    const taken = [], crowded = boxes.length > 12;
    const order = [...boxes].sort((one, other) => (other === chosen) - (one === chosen) || picture.scores[other] - picture.scores[one]);
    return order.flatMap((box) => {
      const [left, top, right] = picture.boxes[box], y = Math.max(size, top - size / 4);
      const score = picture.scores[box].toFixed(2).replace(/^0/, ""), name = REVIEW.categories[picture.labels[box]].name;
      for (const words of [`${name} ${score}`, score]) {
        const plate = [left, y - size, left + 0.58 * size * (words.length + 0.5), y + size / 4];
        const covers = taken.some((other) => plate[0] < other[2] && other[0] < plate[2] && plate[1] < other[3] && other[1] < plate[3]);
        if (box !== chosen && (covers || (crowded && plate[2] > right + size / 2))) continue;
        taken.push(plate);
        return [draw("text", { x: left + size / 6, y, "font-size": size }, words)];
      }
      return [];
    });
  }

  function showPicture() {
    const picture = pictures[at], boxes = shownBoxes(picture), [wide, high] = picture.size;
    if (!boxes.includes(chosen)) chosen = -1;
    const svg = draw("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${picture.name} with ${boxes.length} boxes` });
    svg.append(draw("image", { href: `pictures/${picture.file}.jpg`, width: wide, height: high, preserveAspectRatio: "none" }));
    const bySize = [...boxes].sort((one, other) => area(picture.boxes[other]) - area(picture.boxes[one])); // small ones on top
    for (const box of bySize) {
      const [left, top, right, bottom] = picture.boxes[box], color = colorOf(picture.labels[box]);
      const place = { x: left, y: top, width: right - left, height: bottom - top };
      const rect = draw("rect", { ...place, stroke: color });
      const group = draw("g", { class: `${tickOf(picture, box) || ""} ${box === chosen ? "chosen" : ""}` },
        draw("rect", { ...place, class: "under" }), rect);
      rect.addEventListener("click", () => { chosen = box; showPicture(); });
      svg.append(group);
    }
    svg.append(...captions(picture, boxes, Math.max(wide, high) / (boxes.length > 12 ? 60 : 42)));
    byId("stage").replaceChildren(svg);
    byId("title").textContent = `${at + 1} of ${pictures.length}: ${picture.name}, doubt ${picture.doubt.toFixed(1)}, ${boxes.length} boxes`;
    byId("boxes").replaceChildren(...boxes.map((box) => {
      const state = tickOf(picture, box), cells = ["wrong", "fine"].map((kind) => {
        const input = make("input", { type: "checkbox", "aria-label": kind });
        input.checked = state === kind;
        input.addEventListener("change", () => tick(box, kind));
        return make("td", {}, input);
      });
      const row = make("tr", { class: `${state || ""} ${box === chosen ? "chosen" : ""}` },
        make("td", {}, REVIEW.categories[picture.labels[box]].name), make("td", {}, picture.scores[box].toFixed(2)), ...cells);
      row.addEventListener("click", (event) => { if (event.target.tagName !== "INPUT") { chosen = box; showPicture(); } });
      return row;
    }));
    byId("boxes").querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
    [...byId("list").children].forEach((button, place) => {
      button.setAttribute("aria-current", String(place === at));
      button.classList.toggle("done", done.has(pictures[place].id));
    });
    showCounts();
  }

  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

  function go(place) {
    at = Math.max(0, Math.min(pictures.length - 1, place));
    chosen = -1;
    showPicture();
    byId("list").children[at].scrollIntoView({ block: "nearest" });
  }

  function showList() {
    const by = {
      doubt: (one, other) => other.doubt - one.doubt,
      name: (one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0),
      count: (one, other) => shownBoxes(other).length - shownBoxes(one).length,
    }[byId("order").value];
    pictures = [...REVIEW.pictures].sort(by);
    byId("list").replaceChildren(...pictures.map((picture, place) => {
      const image = make("img", { src: `thumbs/${picture.file}.jpg`, loading: "lazy", alt: "" });
      const button = make("button", { type: "button" }, image, make("span", {}, `${picture.doubt.toFixed(1)}  ${picture.name}`));
      button.addEventListener("click", () => go(place));
      return button;
    }));
    go(0);
  }

  REVIEW.categories.forEach(({ name }, label) => {
    const input = make("input", { type: "checkbox" }), swatch = make("i");
    input.checked = true;
    swatch.style.background = colorOf(label);
    input.addEventListener("change", () => { shownClasses[input.checked ? "add" : "delete"](label); showPicture(); });
    byId("classes").append(make("label", {}, input, " ", swatch, ` ${name}`));
  });
  byId("about").textContent = `${REVIEW.about.recipe}, ${REVIEW.about.network}`;
  least.min = REVIEW.about.score_above;
  byId("order").addEventListener("change", showList);
  byId("only-done").addEventListener("change", showCounts);
  byId("save").addEventListener("click", () => {
    const link = make("a", { download: "reviewed.json" });
    link.href = URL.createObjectURL(new Blob([JSON.stringify(answer())], { type: "application/json" }));
    link.click();
    URL.revokeObjectURL(link.href);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const boxes = shownBoxes(pictures[at]), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") go(at + (event.key === "ArrowRight" ? 1 : -1));
    else if (step && boxes.length) {
      chosen = boxes[Math.max(0, Math.min(boxes.length - 1, boxes.indexOf(chosen) + step))];
      showPicture();
    } else if (event.key === "w" || event.key === "f" || event.key === "u") tick(chosen, { w: "wrong", f: "fine" }[event.key]);
    else if (event.key === "Enter" && event.target.id !== "save") {
      done.add(pictures[at].id);
      remember();
      if (at + 1 < pictures.length) go(at + 1);
      else showPicture();
    } else return;
    event.preventDefault();
  });
  window.review = { answer, tick, go }; // for tests of the page
  least.addEventListener("input", showPicture);
  if (REVIEW.pictures.length) showList();
  else byId("title").textContent = "There is no picture.";
})();
