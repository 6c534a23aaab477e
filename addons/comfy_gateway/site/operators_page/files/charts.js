// A line with its area, drawn into an SVG by its own viewBox; gaps where nothing is known.
const NS = "http://www.w3.org/2000/svg";

function part(svg, name) {
  const found = svg.querySelector(`.${name}`);
  if (found) return found;
  const made = svg.appendChild(document.createElementNS(NS, "path"));
  made.setAttribute("class", name);
  made.setAttribute("vector-effect", "non-scaling-stroke");
  return made;
}

// least: the smallest full height, so that one prompt does not look like a crowd.
export function draw(svg, values, least) {
  const { width, height } = svg.viewBox.baseVal;
  const known = (values ?? []).filter((value) => value !== null);
  const top = Math.max(least, ...known);
  const step = width / Math.max(1, (values?.length ?? 1) - 1);
  let line = "";
  let area = "";
  let from = null;
  const end = (x) => {
    if (from !== null) area += `L${x.toFixed(1)} ${height}L${from.toFixed(1)} ${height}Z`;
    from = null;
  };
  (values ?? []).forEach((value, index) => {
    const x = index * step;
    if (value === null) {
      end(x - step);
      return;
    }
    const y = (height - 1.5 - (value / top) * (height - 3)).toFixed(1);
    const command = from === null ? "M" : "L";
    if (from === null) from = x;
    line += `${command}${x.toFixed(1)} ${y}`;
    area += `${command}${x.toFixed(1)} ${y}`;
  });
  end(width);
  part(svg, "area").setAttribute("d", area);
  part(svg, "line").setAttribute("d", line);
}
