// The map: a dot for a passage, drawn by Chart.js, to be pointed at or walked over with the arrow keys.

/* global Chart */

const COLOURS = 8; // --group-0 and on in style.css
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
export const ZOOM = 1.5;
const MARGIN = 1.08;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const groupColour = (rank) => (rank < COLOURS ? colour(`--group-${rank}`) : colour("--group-rest"));

export class PassageMap {
  constructor(canvas, onRead) {
    this.onRead = onRead;
    this.points = []; // { x, y, row }
    this.chart = new Chart(canvas, {
      type: "scatter",
      data: { datasets: [] },
      options: {
        animation: false,
        parsing: false,
        normalized: true,
        maintainAspectRatio: false,
        layout: { padding: 8 },
        scales: { x: { display: false }, y: { display: false } },
        plugins: { legend: { display: false }, tooltip: { enabled: false } },
        interaction: { mode: "nearest", intersect: true },
        onHover: (_, [found]) =>
          found && this.choose(this.chart.data.datasets[found.datasetIndex].data[found.index].row),
      },
    });
    canvas.parentElement.addEventListener("keydown", (event) => this.onKey(event));
  }

  // places: [x, y, ...] of all rows; groups: lists of rows, the largest first; ringed: the rows that the search found.
  // As long as the places are the same, the zoom and the chosen dot stay.
  show(places, groups, ringed) {
    const fresh = places !== this.places;
    if (fresh) {
      this.places = places;
      this.chosen = undefined;
      this.points = Array.from({ length: places.length / 2 }, (_, row) => ({
        x: places[2 * row],
        y: places[2 * row + 1],
        row,
      }));
    }
    const coloured = groups.slice(0, COLOURS).filter((group) => group.length > 1);
    const others = groups.slice(coloured.length);
    const layer = (rows, fill, radius) => ({
      data: rows.map((row) => this.points[row]),
      backgroundColor: fill,
      borderWidth: 0,
      pointRadius: radius,
      pointHoverRadius: radius,
      pointHitRadius: 4,
    });
    const alone = others.filter((group) => group.length === 1).flat();
    const grouped = others.filter((group) => group.length > 1).flat();
    this.chart.data.datasets = [
      layer(alone, colour("--group-none"), 2),
      layer(grouped, colour("--group-rest"), 2.5),
      ...coloured.map((rows, rank) => layer(rows, groupColour(rank), 3)).reverse(),
      { ...layer(ringed, "transparent", 7), borderWidth: 2, borderColor: colour("--ring"), pointHitRadius: 0 },
      {
        ...layer(this.chosen === undefined ? [] : [this.chosen], "transparent", 9),
        borderWidth: 3,
        borderColor: colour("--chosen"),
        pointHitRadius: 0,
      },
    ];
    if (fresh) this.zoom(0);
    else this.chart.update();
  }

  ring(rows) {
    this.chart.data.datasets.at(-2).data = rows.map((row) => this.points[row]);
    this.chart.update();
  }

  choose(row) {
    if (row === this.chosen) return;
    this.chosen = row;
    this.chart.data.datasets.at(-1).data = [this.points[row]];
    this.chart.update();
    this.onRead(row);
  }

  // Zoom by a factor around the chosen dot, or show all with 0.
  zoom(factor) {
    for (const axis of ["x", "y"]) {
      const values = this.points.map((point) => point[axis]);
      const [least, most] = [Math.min, Math.max].map((pick) => values.reduce((a, b) => pick(a, b)));
      const { min, max } = this.chart.scales[axis];
      const shown = factor ? (max - min) / factor : MARGIN * (most - least) || 1;
      const middle = factor ? (this.points[this.chosen]?.[axis] ?? (min + max) / 2) : (least + most) / 2;
      Object.assign(this.chart.options.scales[axis], { min: middle - shown / 2, max: middle + shown / 2 });
    }
    this.chart.update();
  }

  onKey(event) {
    const direction = DIRECTIONS[event.key];
    if (event.key === "+") this.zoom(ZOOM);
    else if (event.key === "-") this.zoom(1 / ZOOM);
    else if (direction && this.points.length) this.walk(direction);
    else return;
    event.preventDefault();
  }

  // Go to the dot that is near in this direction; one aside counts as farther.
  walk([right, up]) {
    const from = this.points[this.chosen];
    let [best, least] = [from ? this.chosen : 0, Number.POSITIVE_INFINITY];
    for (const { x, y, row } of from ? this.points : []) {
      const [dx, dy] = [x - from.x, y - from.y];
      const ahead = dx * right + dy * up;
      const cost = ahead + 2 * Math.abs(dx * up + dy * right);
      if (ahead > 0 && cost < least) [best, least] = [row, cost];
    }
    this.choose(best);
  }
}
