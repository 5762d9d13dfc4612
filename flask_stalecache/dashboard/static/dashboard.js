"use strict";
// Draws the charts and keeps the page up to date. Without it the page says the same in tables.
(() => {
  const EVERY = 5000, HOUR = 3600, HEIGHT = 240;
  const body = document.body, series = document.getElementById("series"), pause = document.getElementById("pause");
  const seen = document.querySelector("#seen time"), headline = document.getElementById("headline");
  const STATUSES = [...document.querySelectorAll("#rates-legend [data-line]")].map((item) => item.dataset.line);
  const LATENCIES = ["origin95", "origin50", "served95", "served50"];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  let known = empty(), settled = 0, plots = [], timer = 0, asking = null;

  function empty() {
    return { at: [], rates: STATUSES.map(() => []), latency: LATENCIES.map(() => []) };
  }

  // -- numbers as the server writes them

  function rate(value) {
    return value == null ? "" : value >= 100 ? Math.round(value).toString() : value >= 1 || value === 0 ? String(+value.toPrecision(3)) : value.toFixed(2);
  }

  function latency(value) {
    if (value == null) return "";
    if (value <= 0.001) return "≤ 1 ms";
    return value < 1 ? `${+(value * 1000).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`;
  }

  // -- charts

  function legend(id, lines, plot, index, write) {
    lines.forEach((name, place) => {
      const output = document.querySelector(`#${id} [data-line="${name}"] output`);
      output.value = index == null ? "" : write(plot.own[place][index]);
    });
  }

  // Of a logarithmic axis only the powers of ten are worth a line.
  const tens = (plot, splits) => splits.map((value) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6 ? value : null));

  function axes(write, size, filter) {
    const grid = { stroke: color("line"), width: 1, ...(filter && { filter }) }, ticks = { show: false }, stroke = color("soft"), font = "12px system-ui, sans-serif";
    return [
      { grid: { show: false }, ticks, stroke, font, size: 28, space: 70, values: [[3600, "{HH}:{mm}"], [60, "{HH}:{mm}"], [1, "{HH}:{mm}:{ss}"]].map((row) => [...row, null, null, null, null, null, null, 1]) },
      { grid, ticks, stroke, font, size, ...(filter && { filter }), values: (plot, values) => values.map((value) => (value == null ? "" : write(value))) },
    ];
  }

  function make(id, options, lines, own, write) {
    const place = document.getElementById(id);
    place.replaceChildren();
    const plot = new uPlot({
      width: place.clientWidth, height: HEIGHT, legend: { show: false }, padding: [10, 18, 0, 0],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "hour" } },
      hooks: { setCursor: [(self) => legend(id.replace("plot", "legend"), lines, { own: own() }, self.cursor.idx, write)] },
      ...options,
    }, [[], ...lines.map(() => [])], place);
    return plot;
  }

  // uPlot draws what comes first over what comes later here: the sum of all first, the lowest last.
  function stacked() {
    const sums = known.at.map(() => 0);
    const stack = known.rates.map((line) => line.map((value, index) => (sums[index] += value)));
    return [known.at, ...stack.reverse()];
  }

  function draw() {
    const now = known.at.length ? known.at[known.at.length - 1] : Date.now() / 1000;
    const x = { time: true, range: () => [now - Math.min(HOUR, Math.max(300, now - (known.at[0] ?? now))), now] };
    if (!plots.length) {
      const filled = [...STATUSES].reverse().map((name) => ({ fill: color(name.toLowerCase()), width: 0, points: { show: false } }));
      plots.push(make("rates-plot", {
        scales: { x, y: { range: (self, low, high) => [0, Math.max(1, (high || 0) * 1.1)] } }, axes: axes(rate, 44), series: [{}, ...filled],
      }, STATUSES, () => known.rates, rate));
      const own = (name) => color(name.startsWith("origin") ? "miss" : "hit");
      const lines = LATENCIES.map((name) => ({
        stroke: own(name), width: name.endsWith("95") ? 1 : 2, dash: name.endsWith("95") ? [5, 4] : [], alpha: name.endsWith("95") ? 0.85 : 1,
        // A line alone shows nothing of what happened once.
        points: { show: (self) => self.data[0].length < 40, size: 5, fill: own(name) },
      }));
      const bands = [["origin95", 1], ["served95", 3]].map(([name, first]) => ({ series: [first, first + 1], fill: `${own(name)}22` }));
      plots.push(make("latency-plot", {
        scales: { x, y: { distr: 3, range: (self, low, high) => [0.0003, Math.max(1, (high || 0) * 2)] } }, axes: axes(latency, 60, tens), series: [{}, ...lines], bands,
      }, LATENCIES, () => known.latency, latency));
    }
    plots[0].scales.x.range = plots[1].scales.x.range = x.range;
    plots[0].setData(stacked());
    plots[1].setData([known.at, ...known.latency]);
  }

  function redraw() {
    plots.forEach((plot) => plot.destroy());
    plots = [];
    draw();
  }

  // -- what is new

  function take(charts) {
    const lines = () => [known.at, ...known.rates, ...known.latency];
    if (charts.whole) known = empty();
    // What came last was not over.
    else lines().forEach((line) => line.splice(settled));
    charts.at.forEach((at, index) => {
      known.at.push(at);
      STATUSES.forEach((name, place) => known.rates[place].push(charts.rates[name][index]));
      LATENCIES.forEach((name, place) => known.latency[place].push(charts.latency[name][index]));
    });
    const old = known.at.findIndex((at) => at >= (known.at[known.at.length - 1] ?? 0) - HOUR);
    if (old > 0) lines().forEach((line) => line.splice(0, old));
    settled = known.at.length - (charts.running ? 1 : 0);
  }

  function show(parts) {
    for (const [name, html] of Object.entries(parts)) {
      const part = document.querySelector(`[data-part="${name}"]`);
      // Whoever has the keyboard in it keeps it.
      if (part && part.seen !== html && (!part.contains(document.activeElement) || part === document.activeElement)) {
        part.innerHTML = part.seen = html;
      }
    }
  }

  async function ask(whole) {
    clearTimeout(timer);
    asking?.abort();
    const mine = (asking = new AbortController());
    const last = known.at[settled - 1];
    const query = new URLSearchParams({ series: series.value, ...(whole || last === undefined ? {} : { after: last }) });
    try {
      const answer = await fetch(`${body.dataset.now}?${query}`, { signal: mine.signal, redirect: "error", headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const said = await answer.json();
      take(said.charts);
      draw();
      show(said.parts);
      seen.textContent = said.clock;
      // A live region is read out whenever it is written to.
      if (headline.textContent !== said.headline) headline.textContent = said.headline;
      body.classList.remove("lost");
    } catch (error) {
      if (error.name === "AbortError") return;
      body.classList.add("lost");
      const lost = "The page could not be brought up to date.";
      if (headline.textContent !== lost) headline.textContent = lost;
    }
    if (mine === asking) plan();
  }

  function plan() {
    clearTimeout(timer);
    if (!document.hidden && pause.getAttribute("aria-pressed") === "false") timer = setTimeout(ask, EVERY, false);
  }

  function begin() {
    document.querySelectorAll(".no-script").forEach((item) => { item.hidden = true; });
    document.querySelector(".charts").hidden = false;
    document.getElementById("numbers").open = false;
    pause.hidden = false;
    pause.addEventListener("click", () => {
      const paused = pause.getAttribute("aria-pressed") === "false";
      pause.setAttribute("aria-pressed", String(paused));
      if (paused) { clearTimeout(timer); asking?.abort(); } else ask(false);
    });
    series.addEventListener("change", () => ask(true));
    document.addEventListener("visibilitychange", () => { if (document.hidden) { clearTimeout(timer); asking?.abort(); } else if (pause.getAttribute("aria-pressed") === "false") ask(false); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    const sizes = new ResizeObserver(() => plots.forEach((plot) => {
      const width = plot.root.parentElement.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }));
    document.querySelectorAll(".plot").forEach((place) => sizes.observe(place));
    draw();
    ask(true);
  }

  begin();
})();
