"use strict";
(() => {
  const slider = document.getElementById("step");
  if (slider) {
    const frames = document.querySelectorAll("#frames img"), shown = document.getElementById("shown");
    const show = () => {
      frames.forEach((frame, i) => { frame.hidden = i !== Number(slider.value); });
      shown.value = frames[slider.value].dataset.step;
    };
    slider.addEventListener("input", show);
    show();
  }
  for (const chart of document.querySelectorAll(".chart")) {
    const steps = chart.dataset.steps.split(" "), values = chart.dataset.values.split(" ");
    const places = chart.querySelector("polyline").getAttribute("points").split(" ").map((p) => p.split(",").map(Number));
    const svg = chart.querySelector("svg"), said = chart.querySelector(".value");
    const cursor = chart.querySelector(".cursor"), usual = said.value;
    let at = places.length - 1;
    const point = (i) => {
      at = Math.min(Math.max(i, 0), places.length - 1);
      cursor.setAttribute("x1", places[at][0]);
      cursor.setAttribute("x2", places[at][0]);
      cursor.setAttribute("visibility", "visible");
      said.value = `${values[at]} at step ${Number(steps[at]).toLocaleString("en")}`;
    };
    const leave = () => { cursor.setAttribute("visibility", "hidden"); said.value = usual; };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * 320;
      let best = 0;
      places.forEach((p, i) => { if (Math.abs(p[0] - x) < Math.abs(places[best][0] - x)) best = i; });
      point(best);
    });
    svg.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") point(at - 1);
      if (event.key === "ArrowRight") point(at + 1);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
  }
})();
