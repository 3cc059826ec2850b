"use strict";
// Draws the boxes of the sample images and shows those that the controls ask for.
(() => {
  const theme = document.getElementById("theme");
  theme.addEventListener("change", () => {
    document.documentElement.dataset.theme = theme.value;
  });

  const source = document.getElementById("data");
  if (source === null) return;
  const data = JSON.parse(source.textContent);
  const controls = document.getElementById("controls");
  const score = document.getElementById("score");
  const drawn = [];

  const svg = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  const draw = (image, layer, index) => {
    const size = image.width / 32;
    layer.setAttribute("font-size", size);
    for (const [set, category, value, x1, y1, x2, y2] of image.boxes) {
      const isTruth = data.sets[set].name === "truth";
      const group = svg("g", { class: `box ${data.sets[set].tone}` });
      const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
      group.append(svg("rect", { ...place, class: "halo" }), svg("rect", { ...place, class: "line" }));
      const name = data.classes[category];
      const text = svg("text", { x: x1 + size / 5, y: Math.max(y1 + size, size) });
      text.textContent = isTruth ? name : `${name} ${value.toFixed(2)}`;
      const title = svg("title", {});
      title.textContent = `${data.sets[set].name}: ${text.textContent}`;
      group.append(text, title);
      layer.append(group);
      drawn.push({ group, index, set, category, value: isTruth ? 1 : value });
    }
  };

  const figures = [...document.querySelectorAll("figure[data-image]")];
  figures.forEach((figure, index) => {
    draw(data.images[index], figure.querySelector("svg"), index);
    const button = figure.querySelector("button");
    button.addEventListener("click", () => {
      const wide = figure.classList.toggle("wide");
      button.setAttribute("aria-pressed", String(wide));
      figure.scrollIntoView({ block: "nearest" });
    });
  });

  const checked = (name) =>
    new Set([...controls.querySelectorAll(`input[name=${name}]:checked`)].map((box) => Number(box.value)));

  const update = () => {
    const sets = checked("set");
    const categories = checked("class");
    const floor = Number(score.value);
    const counts = figures.map(() => 0);
    for (const { group, index, set, category, value } of drawn) {
      const shown = sets.has(set) && categories.has(category) && value >= floor;
      group.classList.toggle("off", !shown);
      if (shown) counts[index] += 1;
    }
    document.getElementById("score-value").textContent = floor.toFixed(2);
    document.getElementById("gallery").classList.toggle("nameless", !document.getElementById("names").checked);
    figures.forEach((figure, index) => {
      const total = data.images[index].boxes.length;
      figure.querySelector(".count").textContent = `${counts[index]} of ${total} boxes`;
    });
    const all = counts.reduce((sum, count) => sum + count, 0);
    document.getElementById("shown").textContent = `${all} of ${drawn.length} boxes shown`;
  };

  const setClasses = (value) => {
    for (const box of controls.querySelectorAll("input[name=class]")) box.checked = value;
    update();
  };
  document.getElementById("all-classes").addEventListener("click", () => setClasses(true));
  document.getElementById("no-classes").addEventListener("click", () => setClasses(false));
  controls.addEventListener("input", update);
  controls.addEventListener("submit", (event) => event.preventDefault());
  update();
})();
